"""The engine: one thread that schedules, computes and hands text back."""
