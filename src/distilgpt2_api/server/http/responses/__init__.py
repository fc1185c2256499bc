"""Responses that wait for the engine, whole or streamed."""
