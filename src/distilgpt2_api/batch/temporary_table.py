"""A temporary key-value table that may be larger than memory."""

import sqlite3
from types import TracebackType
from typing import Self

from distilgpt2_api.batch.errors import BatchFileError


class TemporaryTable:
    """Owns an unnamed temporary SQLite database, which spills to disk. A context manager; for one thread only.

    Methods raise BatchFileError if the disk is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE items (key PRIMARY KEY, value) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def insert(self, key: str | int, value: str | int) -> bool:
        """Returns False if the key exists; it then keeps its value."""
        return self._execute("INSERT OR IGNORE INTO items VALUES (?, ?)", key, value).rowcount > 0

    def find(self, key: str | int) -> str | int | None:
        row = self._execute("SELECT value FROM items WHERE key = ?", key).fetchone()
        return None if row is None else row[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    def _execute(self, query: str, *values: str | int) -> sqlite3.Cursor:
        try:
            return self._database.execute(query, values)
        except sqlite3.OperationalError as error:
            raise BatchFileError(
                f"can't write the temporary file of line numbers and custom ids: {error} (its folder: SQLITE_TMPDIR)"
            ) from None
