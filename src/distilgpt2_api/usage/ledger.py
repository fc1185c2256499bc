"""The counts of this process, and those of other processes as the store last had them."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Protocol

from distilgpt2_api.core.usage import NO_USAGE, DailyUsage, Usage

logger = logging.getLogger(__name__)


class RowJournal(Protocol):
    """Keeps rows when the process is killed."""

    def put(self, row: DailyUsage) -> None:
        """Write the row's present state. Raises OSError."""

    def forget(self, key: str, day: date) -> None:
        """The row is in the store and will not change."""


class UsageLedger:
    """Mutable: usage by key and day. The event loop adds; the writer's thread stores what has changed.

    This process's counts are absolute and no other process writes them, so storing a row twice changes nothing.
    Stored rows of past months are forgotten. So memory holds a row for each key and day of this month, and of the time
    in which the store could not be written. The lock is not held while the store works.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: Unix time, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, dict[date, DailyUsage]] = defaultdict(dict)
        self._others: dict[str, dict[date, DailyUsage]] = {}
        self._unwritten: set[tuple[str, date]] = set()
        self._since_start: dict[str, Usage] = {}
        self._reserved: dict[str, int] = defaultdict(int)
        self.journal: RowJournal | None = None
        """Gets each change at once."""
        self._has_journal_failed = False
        self.has_changed = threading.Event()
        """Set after each change. The writer clears it."""

    def now(self) -> datetime:
        """In UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)

    @property
    def month_start(self) -> date:
        return self.now().date().replace(day=1)

    @property
    def num_unwritten(self) -> int:
        """Rows that are not in the store as they are now."""
        return len(self._unwritten)

    # ---- the event loop

    def add(self, key: str, usage: Usage) -> None:
        now = self.now()
        day = now.date()
        added = DailyUsage(key=key, day=day, usage=usage, last_used_s=now.timestamp())
        with self._lock:
            days = self._own[key]
            days[day] = days[day] + added if day in days else added
            self._unwritten.add((key, day))
            self._write_journal(days[day])
        self._since_start[key] = self.since_start(key) + usage
        self.has_changed.set()

    def reserve(self, key: str, num_tokens: int) -> None:
        """Count tokens of a request in flight as used. A negative number ends a reservation."""
        self._reserved[key] += num_tokens
        if not self._reserved[key]:
            del self._reserved[key]

    def num_tokens(self, key: str, *, since: date) -> int:
        """Tokens used from that day of this month on, and reserved."""
        with self._lock:
            rows = [row for counts in (self._own, self._others) for row in counts.get(key, {}).values()]
        return sum(row.usage.num_tokens for row in rows if row.day >= since) + self._reserved.get(key, 0)

    def since_start(self, key: str) -> Usage:
        """This process's count, over all days."""
        return self._since_start.get(key, NO_USAGE)

    # ---- any thread

    def own_rows(self) -> Sequence[DailyUsage]:
        with self._lock:
            return [row for days in self._own.values() for row in days.values()]

    # ---- the writer's thread

    def unwritten_rows(self) -> Sequence[DailyUsage]:
        with self._lock:
            return [self._own[key][day] for key, day in self._unwritten]

    def mark_written(self, rows: Iterable[DailyUsage]) -> None:
        """The store has these rows. A row that has changed since stays unwritten."""
        with self._lock:
            for row in rows:
                if self._own[row.key][row.day] is row:
                    self._unwritten.discard((row.key, row.day))
            self._forget_past_months()

    def set_others(self, rows: Iterable[DailyUsage]) -> None:
        """The other processes' rows of this month, as the store has them now."""
        others: dict[str, dict[date, DailyUsage]] = defaultdict(dict)
        for row in rows:
            others[row.key][row.day] = row
        with self._lock:
            self._others = others

    def _forget_past_months(self) -> None:
        start = self.month_start
        for key, days in self._own.items():
            for day in [day for day in days if day < start and (key, day) not in self._unwritten]:
                del days[day]
                if self.journal is not None:
                    self.journal.forget(key, day)

    def _write_journal(self, row: DailyUsage) -> None:
        if self.journal is None:
            return
        try:
            self.journal.put(row)
        except OSError as error:
            if not self._has_journal_failed:
                logger.warning("usage can't be journaled, and is lost if the process is killed now: %s", error.strerror)
            self._has_journal_failed = True
        else:
            self._has_journal_failed = False
