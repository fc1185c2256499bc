"""The Apptainer recipe: one file, from a registry or from an archive."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def recipe(root: Path) -> str:
    return (root / "deploy/apptainer/distilgpt2-api.def").read_text(encoding="utf-8")


def test_every_placeholder_has_a_default(recipe: str) -> None:
    (arguments,) = re.findall(r"^%arguments\n((?:[ \t]+.*\n)+)", recipe, re.MULTILINE)
    defaults = set(re.findall(r"^\s+(\w+)=", arguments, re.MULTILINE))
    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", recipe)) == defaults == {"bootstrap", "image"}


def test_run_starts_the_image_s_command(recipe: str) -> None:
    """Without a %runscript Apptainer makes one from the image's CMD, so the start command is defined only once."""
    assert not re.search(r"^%runscript", recipe, re.MULTILINE)
    assert re.search(r"^%startscript\n(?:\s+#.*\n)*\s+exec /\.singularity\.d/runscript", recipe, re.MULTILINE)
