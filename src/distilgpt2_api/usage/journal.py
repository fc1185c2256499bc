"""A file with the counts of one process, so that `kill -9` loses no request that has ended.

The kernel keeps what was written when the process dies, so nothing waits for the disk. The rows are those of the store,
absolute counts under the process's id: storing them twice changes nothing.
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from distilgpt2_api.core.usage import DailyUsage
from distilgpt2_api.usage.store import UsageSession

PREFIX, SUFFIX = "usage-", ".journal"
ROW = struct.Struct("<64s10s6x4qd8x")
"""Key, day, four counts, last use: 128 bytes, so that no row crosses a page."""


class Journal:
    """Owns a new file, locked while the process lives. Mutable: the place of each row."""

    def __init__(self, folder: Path, process: str) -> None:
        """Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / f"{PREFIX}{process}{SUFFIX}"
        new = self.path.with_suffix(".new")
        self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        new.rename(self.path)  # locked before another process can find it
        self._places: dict[tuple[str, date], int] = {}
        self._free: list[int] = []
        self._num_places = 0

    def put(self, row: DailyUsage) -> None:
        """Write the row's present state. Raises OSError."""
        place = self._places.get((row.key, row.day))
        if place is None:
            place = self._free.pop() if self._free else self._num_places
        key, day, *numbers = row.columns
        os.pwrite(self._file, ROW.pack(key.encode(), day.encode(), *numbers), place * ROW.size)
        self._places[row.key, row.day] = place
        self._num_places = max(self._num_places, place + 1)

    def forget(self, key: str, day: date) -> None:
        """The store has the row, and it will not change: its place can be used for another."""
        place = self._places.pop((key, day), None)
        if place is not None:
            self._free.append(place)

    def close(self, *, is_stored: bool) -> None:
        """`is_stored`: the store has all rows, so the file is removed. Otherwise the next process stores them."""
        if is_stored:
            self.path.unlink(missing_ok=True)
        os.close(self._file)


def store_journals(folder: Path, session: UsageSession) -> None:
    """Store what processes that have died left behind. Raises StoreError, OSError."""
    for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its process lives
            rows: Sequence[DailyUsage] = [*_read_rows(file.read())]
            session.write(path.name.removeprefix(PREFIX).removesuffix(SUFFIX)[:32], rows)
            path.unlink(missing_ok=True)


def _read_rows(content: bytes) -> Iterator[DailyUsage]:
    """Rows that are not whole are left out."""
    for offset in range(0, len(content) - ROW.size + 1, ROW.size):
        key, day, *numbers = ROW.unpack_from(content, offset)
        try:
            yield DailyUsage.from_columns((key.rstrip(b"\0").decode("ascii"), day.decode("ascii"), *numbers))
        except ValueError:
            continue
