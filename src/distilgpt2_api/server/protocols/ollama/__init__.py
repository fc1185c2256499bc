"""Ollama's API: `/api/generate`, `/api/chat`, and what describes the model."""
