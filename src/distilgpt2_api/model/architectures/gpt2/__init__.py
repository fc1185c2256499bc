"""GPT-2: its config, its tensors."""
