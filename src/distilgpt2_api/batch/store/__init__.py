"""Files and batches in a store that outlives the process, and who works on them."""
