"""What an operator sees: log lines and metrics. Never the text of anybody."""
