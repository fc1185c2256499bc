"""DistilGPT-2, and any GPT-2 checkpoint, as a REST API: no PyTorch, continuous batching, a container."""
