"""Behaviour that all commands share."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

from distilgpt2_api.cli.commands import COMMANDS


def test_help_lists_every_command(invoke: Any) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name, description in COMMANDS.items():
        assert name in result.output
        assert description in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, invoke: Any) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: distilgpt2-api {name}")


def test_the_version_is_that_of_the_package(invoke: Any) -> None:
    assert invoke("--version").output == f"distilgpt2-api {importlib.metadata.version('distilgpt2-api')}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["generate"], ["generate", "x", "--n", "0"], ["serve", "--wrong"]])
def test_wrong_usage_exits_with_status_2(arguments: list[str], invoke: Any) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["config"], {"PORT": "abc"}, "error: PORT (environment) can't be 'abc': input should be a valid integer"),
        (
            ["config"],
            {"DISTILGPT2_PROT": "1"},
            "error: unknown setting DISTILGPT2_PROT in the environment; did you mean",
        ),
        (
            ["generate", "x", "--model", "gpt9"],
            {},
            "error: no model 'gpt9' (models here: storyteller), and no folder /",
        ),
        (
            ["keys", "list"],
            {"DISTILGPT2_API_KEYS_FILE": "nowhere"},
            "error: the file of API keys nowhere is missing, or not a",
        ),
        (["generate", "x"], {"DISTILGPT2_MODEL": "./nowhere"}, "error: no folder /"),
    ],
)
def test_an_error_is_one_line_and_exits_with_status_1(
    arguments: list[str], environment: dict[str, str], line: str, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` has statuses of its own: tests/e2e/test_start_errors.py."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_help_and_healthcheck_import_no_kernels() -> None:
    """Containers run the health check every few seconds: it must not import the kernels, NumPy, Gunicorn or FastAPI."""
    program = """
import sys
from distilgpt2_api.cli import main
try:
    main(["healthcheck", "--url", "http://127.0.0.1:9/"])
finally:
    heavy = {"distilgpt2_api.model.kernels", "numpy", "gunicorn", "fastapi", "tokenizers", "huggingface_hub"}
    print(sorted(heavy & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == "[]"
    assert result.returncode == 1


def test_the_module_runs_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "distilgpt2_api", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("distilgpt2-api ")
