"""The documentation's commands work as they stand, typed page by page in a checkout that `make install` has prepared.

The pages are in the order of the site's navigation, after the README: later pages may use what earlier ones made. A
single page needs the README before it: make test-docs ARGS="-k 'README or chat'".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import READING_ORDER, Block, command_blocks, page_name

pytestmark = pytest.mark.timeout(900)


def runnable_blocks(page: Path) -> list[Block]:
    return [block for block in command_blocks(page) if block.reason is None]


@pytest.mark.parametrize("page", [page for page in READING_ORDER if runnable_blocks(page)], ids=page_name)
def test_the_commands_of_a_page_work(reader: Any, page: Path) -> None:
    output = reader.read_page(runnable_blocks(page))
    match page.name:
        case "structured-output.md":
            assert '"finish_reason":"stop"' in output
            assert '"finish_reason":"length"' not in output, "an example is cut off"
        case "lm-eval.md":
            check_shown_score(page, output)
        case "batch-api.md":
            assert "completed BatchRequestCounts(completed=2, failed=0, total=2) None" in output


def check_shown_score(page: Path, output: str) -> None:
    """The page shows the first score of the answer, rounded, with its members in their order."""
    block = re.search(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    shown = json.loads(block[1].replace(",\n  …", ""))
    (answer,) = [
        json.loads(line)
        for line in output.splitlines()
        if line.startswith('{"object":"list","data":[{"object":"score"')
    ]
    (shown_score,), score = shown.pop("data"), answer.pop("data")[0]
    assert list(shown_score) == list(score)
    for name, value in score.items():
        assert shown_score[name] == (pytest.approx(value, rel=2e-3) if isinstance(value, float) else value)
    assert shown == answer
