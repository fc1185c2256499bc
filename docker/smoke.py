"""Generates a text and imports the service with only the files of the image: fails if trimming removed too much.

/opt/venv/bin/python docker/smoke.py
"""

from __future__ import annotations

import sys
from importlib import import_module

from distilgpt2_api.text_generation import TextGenerator

with TextGenerator(seed=1) as generator:
    [text] = generator.generate("Once upon a time", max_new_tokens=8)
    assert text.startswith("Once upon a time"), text
for module in ("distilgpt2_api.api", "distilgpt2_api.worker", "distilgpt2_api.cli.commands.healthcheck"):
    import_module(module)
assert "huggingface_hub" not in sys.modules
print(f"smoke test: {text!r}")
