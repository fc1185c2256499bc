"""The engine: one thread that schedules steps, computes them and returns text."""
