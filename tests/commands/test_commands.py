"""The documentation's commands work as written, with another address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import PAGES, Block, command_blocks, page_name


def runnable_blocks(page: Path) -> list[Block]:
    return [block for block in command_blocks(page) if block.reason is None]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable_blocks(page)], ids=page_name)
def test_the_commands_of_a_page_work(terminal: Any, page: Path) -> None:
    for block in runnable_blocks(page):
        terminal.run(block)
