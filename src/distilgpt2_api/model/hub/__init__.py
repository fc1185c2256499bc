"""Pulls models from the hub, and finds them on disk."""
