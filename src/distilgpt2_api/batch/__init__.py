"""Batches: a file of requests in, one answer or error for each line out. Knows no HTTP."""
