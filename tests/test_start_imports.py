"""A start imports only what it needs: a module too many costs every start its time, and every worker its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = {"torch", "transformers", "huggingface_hub", "httpx2", "openvino", "ray", "pydantic_settings", "safetensors"}
"""The service doesn't need them, installed or not."""
WITH_SETTINGS = {"sqlalchemy", "opentelemetry.sdk"}
"""Only if a setting asks for what needs them."""
IN_WORKER = {
    "numpy",
    "tokenizers",
    "fastapi",
    "llguidance",
    "distilgpt2_api.model.runner",
    "distilgpt2_api.application",
}
"""Not in Gunicorn's master, which only starts workers."""


@pytest.mark.parametrize(
    ("imported", "forbidden"),
    [
        ("distilgpt2_api.cli.serve, distilgpt2_api.worker", NEVER | WITH_SETTINGS | IN_WORKER),
        ("distilgpt2_api.engine_preload", NEVER | WITH_SETTINGS | {"fastapi", "starlette", "uvicorn", "gunicorn"}),
        ("distilgpt2_api.application", NEVER | WITH_SETTINGS | {"gunicorn"}),
    ],
    ids=["master", "while the model loads", "worker"],
)
def test_a_start_imports_only_what_it_needs(imported: str, forbidden: set[str]) -> None:
    program = f"import sys, {imported}; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()

    assert sorted(forbidden.intersection(modules)) == []
