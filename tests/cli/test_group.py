"""Behaviour that all commands share."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.cli.group import COMMANDS

ROOT = Path(__file__).parents[2]


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


def test_an_output_on_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-m", "distilgpt2_api", "config"]
    with Path("/dev/full").open("w") as full_disk:
        result = subprocess.run(command, stdout=full_disk, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: can't write the output: No space left on device\n")


HEED_INTERRUPTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # even if those of the tests are ignored
"""
INTERRUPTED_IMPORT = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""
INTERRUPTED_INPUT = """
import signal, sys
class Input:
    def read(self):
        signal.raise_signal(signal.SIGINT)
sys.stdin = Input()
"""


@pytest.fixture
def run_entry_point(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program as the installed script does, after `site`, which Python imports first."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["distilgpt2-api"].partition(":")
    program = f"import sys; from {module} import {function}; sys.exit({function}())"

    def run(site: str, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> Any:
        (tmp_path / "sitecustomize.py").write_text(site)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [*prefix, sys.executable, "-c", program, *arguments],
            env=os.environ | {"PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.reported("first hour: Ctrl-C at once after a mistyped command printed a traceback")
@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["serve"], "click"),
        (["serve"], "gunicorn.app.base"),
        (["batch", "in.jsonl", "-o", "out.jsonl"], "distilgpt2_api.cli.group"),
        (["batch", "in.jsonl", "-o", "out.jsonl"], "asyncio"),
        (["evaluate", "text.txt"], "numpy"),
        (["generate", "Once"], "distilgpt2_api.engine.engine"),
        (["--version"], "importlib.metadata"),
    ],
)
def test_an_interrupt_while_it_starts_ends_it_without_a_message(
    run_entry_point: Any, arguments: list[str], module: str
) -> None:
    result = run_entry_point(HEED_INTERRUPTS + INTERRUPTED_IMPORT, *arguments, INTERRUPTED_IMPORT=module)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_interrupt_of_a_command_ends_it_without_a_message(run_entry_point: Any) -> None:
    """Once the command has been imported, it raises: `finally` and `with` can clean up."""
    result = run_entry_point(HEED_INTERRUPTS + INTERRUPTED_INPUT, "generate", "-")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_ignored_interrupt_stays_ignored(run_entry_point: Any) -> None:
    """As after `nohup`, or of a job that a script starts in the background."""
    ignoring = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    result = run_entry_point(INTERRUPTED_IMPORT, "--version", prefix=ignoring, INTERRUPTED_IMPORT="click")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("distilgpt2-api ")


def test_the_module_runs_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "distilgpt2_api", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("distilgpt2-api ")
