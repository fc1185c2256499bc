"""Weights on disk: checkpoints, prepared weights, the compiled cache."""
