"""Protocols, paths, and the errors of unknown paths and methods."""
