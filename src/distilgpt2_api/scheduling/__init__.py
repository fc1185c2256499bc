"""Decides which tokens the next step computes: plain Python, without a model."""
