"""The id of an answer's line names the line that it answers: so an output says by itself what is done."""

from __future__ import annotations

import re
import sqlite3
from types import TracebackType
from typing import Self

from distilgpt2_api.batch.records import Record

PATTERN = re.compile(r"batch_req_([1-9][0-9]{0,17})_([0-9a-f]{16})")


def line_id(record: Record) -> str:
    """`batch_req_NUMBER_DIGEST` of the input's record."""
    return f"batch_req_{record.number}_{record.digest}"


def parse_line_id(text: object) -> tuple[int, str]:
    """Number and digest. Raises ValueError."""
    match = PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"no id of an answer: {text!r}"[:100])
    return int(match[1]), match[2]


class DoneLines:
    """Which lines have been answered. Owns a temporary database, which spills to disk: memory is bounded."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE done (number INTEGER PRIMARY KEY, digest TEXT)")
        self._database.execute("BEGIN")
        self.num_lines = 0
        """Read only, for others."""

    def add(self, number: int, digest: str) -> None:
        """Raises ValueError where it is there already."""
        try:
            self._database.execute("INSERT INTO done VALUES (?, ?)", (number, digest))
        except sqlite3.IntegrityError:
            raise ValueError(f"line {number} has been answered before") from None
        self.num_lines += 1

    def digest_of(self, number: int) -> str | None:
        """None: that line has not been answered."""
        row = self._database.execute("SELECT digest FROM done WHERE number = ?", (number,)).fetchone()
        return None if row is None else str(row[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
