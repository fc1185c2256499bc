"""LangChain and LlamaIndex, as the documentation shows them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import ROOT, Block, command_blocks

PYTHON = ROOT / ".tools" / "frameworks" / "bin" / "python"
PROGRAMS = [
    block
    for block in command_blocks(ROOT / "docs" / "clients.md")
    if block.language == "python" and "tests/clients runs it" in (block.reason or "")
]


def test_the_documentation_shows_both() -> None:
    assert ["langchain" in block.text for block in PROGRAMS] == [True, False]


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_the_program_prints_a_completion(storyteller: Any, block: Block, tmp_path: Path) -> None:
    program = block.text.replace("http://localhost:8000", storyteller.url)

    done = subprocess.run(
        [PYTHON, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "LANGSMITH_TRACING": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 20
