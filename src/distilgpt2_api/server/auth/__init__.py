"""Who may call: API keys, callers and their limits."""
