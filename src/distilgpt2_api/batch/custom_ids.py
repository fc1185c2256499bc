"""Which custom ids a file has had, however many."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

from distilgpt2_api.batch.lines import DUPLICATE_ID, LineError


class CustomIds:
    """Owns a temporary database, which spills to disk: memory is bounded. A context manager, one thread's."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE ids (custom_id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, custom_id: str, *, number: int) -> None:
        """Raises LineError where an earlier line has it."""
        try:
            self._database.execute("INSERT INTO ids VALUES (?, ?)", (custom_id, number))
        except sqlite3.IntegrityError:
            query = "SELECT number FROM ids WHERE custom_id = ?"
            (first,) = self._database.execute(query, (custom_id,)).fetchone()
            raise LineError(
                f"custom_id: line {first} has the same, {custom_id[:100]!r}",
                number=number,
                code=DUPLICATE_ID,
                param="custom_id",
                custom_id=custom_id,
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
