"""The terminal reports a block that fails."""

from __future__ import annotations

from typing import Any

import pytest
from tests.docs.blocks import ROOT, Block


def block_of(text: str, *, language: str = "sh") -> Block:
    return Block(page=ROOT / "README.md", line=1, language=language, text=text, reason=None)


@pytest.mark.parametrize(
    "block",
    [
        block_of("curl localhost:8000/v1/modles"),
        block_of("false\ntrue"),
        block_of("distilgpt2-api serve --model ./none"),
        block_of("raise SystemExit(3)", language="python"),
    ],
    ids=["a refused request", "a failed line", "a server that does not start", "a program"],
)
def test_a_failure_is_reported_with_its_page_and_line(terminal: Any, block: Block) -> None:
    with pytest.raises(AssertionError, match=r"README\.md:1: exit status [1-9]"):
        terminal.run(block)
