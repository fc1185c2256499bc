"""API keys, access to routes, callers and their limits."""
