"""Reads weights from disk: checkpoints, prepared weights, the compiled cache."""
