"""Outputs are written in order or immediately, and each position once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.output_file import OutputFile


@pytest.fixture
def files(tmp_path: Path) -> Any:
    files = {name: OutputFile(tmp_path / name, file_format=JsonLines()) for name in ("output", "errors")}
    yield files
    for file in files.values():
        file.close()


def line_output(content: bytes, *, is_failed: bool = False) -> LineOutput:
    return LineOutput(num_bytes=1, content=content, is_failed=is_failed)


def test_an_output_waits_for_all_earlier_positions(files: Any, tmp_path: Path) -> None:
    written: list[LineOutput] = []
    writer = OrderedWriter(**files, is_ordered=True, on_written=written.append)
    writer.submit(2, line_output(b"c"))
    writer.submit(1, line_output(b"bb", is_failed=True))
    assert ((tmp_path / "output").read_bytes(), writer.held_bytes, writer.num_written) == (b"", 3, 0)
    writer.submit(0, line_output(b"a"))
    assert ((tmp_path / "output").read_bytes(), (tmp_path / "errors").read_bytes()) == (b"ac", b"bb")
    assert (writer.held_bytes, writer.num_written) == (0, 3)
    assert [one.content for one in written] == [b"a", b"bb", b"c"]


class FullDisk(OutputFile):
    """Has room for `num_free` bytes."""

    num_free = 2

    def append(self, line: bytes) -> None:
        if len(line) > self.num_free:
            raise BatchFileError("no space left on device")
        super().append(line)
        self.num_free -= len(line)


def test_no_output_is_written_before_one_that_could_not_be(files: Any, tmp_path: Path) -> None:
    """Answers that arrive together are all submitted, although the first one ends the run."""
    output = FullDisk(tmp_path / "full", file_format=JsonLines())
    writer = OrderedWriter(output=output, errors=files["errors"], is_ordered=True, on_written=lambda _: None)
    for position, content in enumerate([b"aaa", b"b"]):
        with pytest.raises(BatchFileError, match="no space left"):
            writer.submit(position, line_output(content))
    assert ((tmp_path / "full").read_bytes(), writer.num_written, writer.held_bytes) == (b"", 0, 4)
    output.num_free = 9
    writer.submit(2, line_output(b"c"))
    output.close()
    assert ((tmp_path / "full").read_bytes(), writer.num_written, writer.held_bytes) == (b"aaabc", 3, 0)


@pytest.mark.parametrize(("is_ordered", "expected"), [(True, b"abc"), (False, b"cab")])
def test_a_position_submitted_twice_is_written_once(
    files: Any, tmp_path: Path, is_ordered: bool, expected: bytes
) -> None:
    """Before and after it is written: a line that was lost may be answered twice."""
    writer = OrderedWriter(**files, is_ordered=is_ordered, on_written=lambda _: None)
    for position, content in [(2, b"c"), (2, b"C"), (0, b"a"), (0, b"A"), (1, b"b"), (1, b"B"), (2, b"C")]:
        writer.submit(position, line_output(content))
    assert ((tmp_path / "output").read_bytes(), writer.num_written, writer.held_bytes) == (expected, 3, 0)
