"""What an operator sees: log lines, metrics and traces. Never the text of anybody."""
