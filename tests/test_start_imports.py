"""A start imports only what it needs: a module too many costs every start its time, and every worker its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = {"torch", "transformers", "huggingface_hub", "httpx2", "openvino", "ray", "pydantic_settings", "safetensors"}
"""The service doesn't need them, installed or not."""
WITH_SETTINGS = {"sqlalchemy", "sqlite3", "opentelemetry.sdk"}
"""Only if a setting asks for what needs them."""
WITH_A_REQUEST = {"jinja2", "llguidance", "pydantic.v1", "distilgpt2_api.text.structured_output.grammar_library"}
"""Only for a model with a chat template, for a grammar, or for the OpenAPI document."""
IN_WORKER = {
    "numpy",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "llguidance",
    "distilgpt2_api.model.runner",
    "distilgpt2_api.application",
}
"""Not in Gunicorn's master, which only starts workers."""
LATER = NEVER | WITH_SETTINGS | WITH_A_REQUEST
LEAN = "from distilgpt2_api.lean_imports import lean_imports\nwith lean_imports(): "


@pytest.mark.parametrize(
    ("imports", "forbidden"),
    [
        ("import distilgpt2_api.cli.commands.serve, distilgpt2_api.worker", LATER | IN_WORKER),
        ("import distilgpt2_api.engine_preload", LATER | {"fastapi", "starlette", "uvicorn", "gunicorn"}),
        (f"{LEAN}import distilgpt2_api.application", LATER | {"gunicorn"}),
    ],
    ids=["master", "while the model loads", "worker"],
)
def test_a_start_imports_only_what_it_needs(imports: str, forbidden: set[str]) -> None:
    # Without what the interpreter has before, such as a coverage measurement's own.
    program = f"import sys; before = set(sys.modules)\n{imports}\nprint(*sorted(set(sys.modules) - before))"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()

    assert sorted(forbidden.intersection(modules)) == []
