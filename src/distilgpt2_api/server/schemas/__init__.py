"""Bodies as their protocols define them."""
