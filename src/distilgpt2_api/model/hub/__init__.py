"""Models from the hub and the folder that keeps them."""
