"""OpenAI's API: completions, chat, models, files and batches."""
