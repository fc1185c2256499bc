"""Several nodes: Ray Serve with a gateway, and Ray Data for batch files."""
