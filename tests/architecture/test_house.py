"""The house's own rules, as far as a program can see them. Import contracts are import-linter's (`make imports`)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "distilgpt2_api"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 300
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "data"}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_documented_and_honest_about_its_imports(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)

    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree), "a module says what it is for"
    assert "TYPE_CHECKING" not in text, "a cycle is mended, not hidden"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)], "no global state"
    assert path.stem not in FORBIDDEN_NAMES


def test_only_the_settings_read_the_environment() -> None:
    readers = [name_of(path) for path in MODULES if re.search(r"\bos\.(environ|getenv)\b", path.read_text())]

    # `serve` hands its options to the worker through the environment; `sources` offers it the function for that.
    assert readers == ["settings/sources.py"]


def test_importing_the_package_needs_none_of_its_parts() -> None:
    program = "import sys, distilgpt2_api; print([m for m in sys.modules if m in ('openvino', 'fastapi', 'numpy')])"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_the_readme_begins_with_the_two_commands() -> None:
    commands = re.findall(r"^```sh\n(.+?)\n```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)

    assert [command for command in commands if command.startswith("make")][:2] == ["make run", "make test"]


def test_the_bundled_model_keeps_within_its_grant() -> None:
    """8 MB of the package at most."""
    folder = SOURCE / "models" / "storyteller"

    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
