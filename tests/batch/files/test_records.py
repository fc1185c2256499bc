"""Lines and rows are read one at a time, with any line end and of any length."""

from __future__ import annotations

import io
from typing import Any

import pytest

from distilgpt2_api.batch.files.records import PIECE_BYTES, InputRecord, read_records


def records_of(content: bytes, **options: Any) -> list[InputRecord]:
    return list(read_records(io.BytesIO(content), **options))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb", [(1, b"a"), (2, b"b")]),
        (b"\n \r\n\na\n\nb\n\n", [(4, b"a"), (6, b"b")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b'"a\nb"\n', [(1, b'"a'), (2, b'b"')]),
    ],
)
def test_lines_are_numbered_and_stripped_of_their_line_ends(content: bytes, expected: list[tuple[int, bytes]]) -> None:
    """Blank lines are skipped but counted. A byte order mark is not part of the first line."""
    assert [(record.number, record.content) for record in records_of(content)] == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a,"x\ny"\nb,z\n', [(1, b'a,"x\ny"'), (3, b"b,z")]),
        (b'a,"x""\r\n""y"\r\nb\r\n', [(1, b'a,"x""\r\n""y"'), (3, b"b")]),
        (b'a,"x\n\ny\n', [(1, b'a,"x\n\ny\n')]),
    ],
)
def test_a_quoted_cell_may_contain_line_ends(content: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert [(record.number, record.content) for record in records_of(content, has_quotes=True)] == expected


def test_a_row_longer_than_a_read_is_one_record() -> None:
    cell = b"x\n" * PIECE_BYTES + b'""' * PIECE_BYTES
    content = b'"' + cell + b'"\n'
    (record, last) = records_of(content + b"end\n", has_quotes=True)
    assert (record.content, record.num_bytes) == (content[:-1], len(content))
    assert (last.number, last.offset) == (PIECE_BYTES + 2, len(content))


def test_only_the_digest_of_a_line_that_is_too_long_is_kept() -> None:
    """The line after it is read normally."""
    long = b"x" * (3 * PIECE_BYTES)
    too_long, short = records_of(long + b"\nb\n", max_bytes=1000)
    assert (too_long.content, too_long.num_bytes, too_long.number) == (None, len(long) + 1, 1)
    assert (short.content, short.number) == (b"b", 2)
    other = b"y" + long[1:]
    assert (
        len({records_of(content, max_bytes=limit)[0].digest for content in (long, other) for limit in (9, None)}) == 2
    )


def test_a_digest_ignores_the_line_end() -> None:
    assert len({records_of(content)[0].digest for content in (b"a", b"a\n", b"a\r\n", b"a\nb")}) == 1


def test_the_last_record_may_be_incomplete() -> None:
    assert [record.is_ended for record in records_of(b"a\nb")] == [True, False]
    assert [record.is_ended for record in records_of(b'a\n"b\n', has_quotes=True)] == [True, False]
    assert [(record.offset, record.num_bytes) for record in records_of(b"a\n\nbc")] == [(0, 2), (3, 2)]
