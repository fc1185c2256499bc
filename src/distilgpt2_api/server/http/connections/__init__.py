"""Connections of our own server: their limits, TLS, and how they end."""
