"""Log lines, metrics and traces. They contain no text of prompts or completions."""
