"""A folder for each model architecture."""
