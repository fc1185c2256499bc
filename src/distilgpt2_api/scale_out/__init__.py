"""Several nodes: Ray Serve behind a gateway, and Ray Data for batch files."""
