"""Hugging Face's Text Generation Inference (TGI): `/generate`, `/generate_stream`, `/info`."""
