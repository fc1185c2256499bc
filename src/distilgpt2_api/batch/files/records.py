"""Reads a file as records: lines, or rows of a table, where quoted cells may contain line ends."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIECE_BYTES = 1 << 16
DIGEST_BYTES = 8
"""Enough to detect a changed line; no protection against forgery."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    number: int
    """The line on which it starts, from 1."""
    offset: int
    num_bytes: int
    """Size in the file, with its line end."""
    content: bytes | None
    """Without its line end; None if it is longer than the reader's limit."""
    digest: str
    """Digest of the complete content, even if `content` is None."""
    is_ended: bool
    """False if the file ends inside the record."""


def read_records(file: BinaryIO, *, max_bytes: int | None = None, has_quotes: bool = False) -> Iterator[InputRecord]:
    """Yields records that are not blank, without a byte order mark. At most `max_bytes` of one are kept in memory.

    `has_quotes`: a line end between two quotation marks doesn't end the record (RFC 4180).
    """
    number, offset = 1, 0
    while True:
        pieces = RecordPieces(max_bytes=max_bytes, has_quotes=has_quotes)
        while piece := file.readline(PIECE_BYTES):
            pieces.add(piece.removeprefix(BYTE_ORDER_MARK) if offset + pieces.num_bytes == 0 else piece, len(piece))
            if pieces.is_ended:
                break
        if not pieces.num_bytes:
            return
        if not pieces.is_blank:
            yield pieces.record(number=number, offset=offset)
        number += pieces.num_lines
        offset += pieces.num_bytes


class RecordPieces:
    """The pieces of one record, while it is read. Mutable."""

    def __init__(self, *, max_bytes: int | None, has_quotes: bool) -> None:
        self._max_bytes = max_bytes
        self._has_quotes = has_quotes
        self._pieces: list[bytes] | None = []
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._is_quoted = False
        self.num_bytes = 0
        self.num_lines = 0
        self.is_blank = True
        self.is_ended = False

    def add(self, piece: bytes, num_bytes: int) -> None:
        """`num_bytes`: the piece's size in the file."""
        self.num_bytes += num_bytes
        if self._has_quotes and piece.count(b'"') % 2:
            self._is_quoted = not self._is_quoted
        if piece.endswith(b"\n"):
            self.num_lines += 1
            self.is_ended = not self._is_quoted
        self.is_blank = self.is_blank and not piece.strip()
        content = piece.rstrip(b"\r\n") if self.is_ended else piece
        self._digest.update(content)
        if self._max_bytes is not None and self.num_bytes > self._max_bytes:
            self._pieces = None
        if self._pieces is not None:
            self._pieces.append(content)

    def record(self, *, number: int, offset: int) -> InputRecord:
        return InputRecord(
            number=number,
            offset=offset,
            num_bytes=self.num_bytes,
            content=None if self._pieces is None else b"".join(self._pieces),
            digest=self._digest.hexdigest(),
            is_ended=self.is_ended,
        )
