"""The Batch API's files and batches in a database, and the worker that answers them."""
