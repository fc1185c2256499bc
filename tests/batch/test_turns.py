"""Outcomes into their files: in turn or as they come, and each turn once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.batch.formats import JsonLines
from distilgpt2_api.batch.outcomes import Outcome
from distilgpt2_api.batch.output_file import OutputFile
from distilgpt2_api.batch.turns import Turns


@pytest.fixture
def files(tmp_path: Path) -> Any:
    files = {name: OutputFile(tmp_path / name, file_format=JsonLines()) for name in ("output", "errors")}
    yield files
    for file in files.values():
        file.close()


def outcome(content: bytes, *, is_failed: bool = False) -> Outcome:
    return Outcome(num_bytes=1, content=content, is_failed=is_failed)


def test_what_comes_early_waits_for_its_turn(files: Any, tmp_path: Path) -> None:
    written: list[Outcome] = []
    turns = Turns(**files, is_ordered=True, on_written=written.append)
    turns.settle(2, outcome(b"c"))
    turns.settle(1, outcome(b"bb", is_failed=True))
    assert ((tmp_path / "output").read_bytes(), turns.held_bytes, turns.num_written) == (b"", 3, 0)
    turns.settle(0, outcome(b"a"))
    assert ((tmp_path / "output").read_bytes(), (tmp_path / "errors").read_bytes()) == (b"ac", b"bb")
    assert (turns.held_bytes, turns.num_written) == (0, 3)
    assert [one.content for one in written] == [b"a", b"bb", b"c"]


@pytest.mark.parametrize(("is_ordered", "expected"), [(True, b"abc"), (False, b"cab")])
def test_a_turn_that_comes_again_is_written_once(files: Any, tmp_path: Path, is_ordered: bool, expected: bytes) -> None:
    """Before its turn and after it: what was lost may have been done twice."""
    turns = Turns(**files, is_ordered=is_ordered, on_written=lambda _: None)
    for turn, content in [(2, b"c"), (2, b"C"), (0, b"a"), (0, b"A"), (1, b"b"), (1, b"B"), (2, b"C")]:
        turns.settle(turn, outcome(content))
    assert ((tmp_path / "output").read_bytes(), turns.num_written, turns.held_bytes) == (expected, 3, 0)
