"""Computes steps with OpenVINO: its graph, options and memory."""
