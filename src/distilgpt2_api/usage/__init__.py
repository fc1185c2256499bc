"""Usage per API key: counted in memory, written to a database by a thread, bounded by budgets."""
