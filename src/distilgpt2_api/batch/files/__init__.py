"""The command: requests in a file, an answer or an error for each line in another, exactly once."""
