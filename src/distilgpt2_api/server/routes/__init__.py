"""One module a protocol or resource; each adds its routes to the router that it is given."""
