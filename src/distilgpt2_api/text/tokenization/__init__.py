"""Text to token ids: a model's tokenizer, the files that it is read from, and the checks of these files."""
