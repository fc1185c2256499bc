"""Usage per API key: accounts for requests, the thread that stores their counts, and reports."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.core.errors import SettingsError, StoreError
from distilgpt2_api.core.usage import DailyUsage
from distilgpt2_api.usage.budgets import Budget, KeyAccount, budgets_of
from distilgpt2_api.usage.journal import Journal, store_journals
from distilgpt2_api.usage.ledger import UsageLedger
from distilgpt2_api.usage.store import KEEP_DAYS, UsageSession, UsageStore

logger = logging.getLogger(__name__)

PAUSE_S = 0.05
"""Between two writes: what changes meanwhile is written together."""
RETRY_S = 1.0
"""Between two attempts while the store can't be written."""
REFRESH_S = 1.0
"""How old the other processes' counts may be if a budget depends on them."""
LAST_WRITE_S = 2.0
"""Time for the last write at shutdown."""


class KeyDirectory(Protocol):
    """The present keys."""

    @property
    def names(self) -> Sequence[str]: ...

    def limits_of(self, name: str) -> CallerLimits:
        """No limits for a key that has been removed."""


class KeyUsage:
    """Counts usage in memory and writes it behind: no request waits for the store.

    A thread writes each change at once, or with others after `PAUSE_S`. If the store can't be written, it tries again
    until it can. If the process is killed, the next one stores its journal, so only requests in flight are lost.
    """

    def __init__(
        self, keys: KeyDirectory, ledger: UsageLedger, store: UsageStore | None, *, journal_folder: Path | None = None
    ) -> None:
        """Without a store, counts end with the process. `journal_folder`: where processes leave their journals."""
        self._keys = keys
        self._ledger = ledger
        self._store = store
        self._journal_folder = journal_folder
        self._journal: Journal | None = None
        self._process = ""
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        self._has_budgets = False
        self.is_stored = store is not None
        """Whether the last attempt to use the store succeeded."""

    @property
    def ledger(self) -> UsageLedger:
        return self._ledger

    @property
    def key_names(self) -> Sequence[str]:
        return self._keys.names

    def open_account(self, key: str) -> KeyAccount:
        """The account for one request of a key."""
        return KeyAccount(key, self._keys.limits_of(key), self._ledger, on_budget=self._note_budget)

    def budgets_of(self, key: str) -> Sequence[Budget]:
        return budgets_of(key, self._keys.limits_of(key), self._ledger)

    async def read(self, first: date, last: date) -> Sequence[DailyUsage]:
        """Usage of these days by key and day, including what is not stored yet. Raises StoreError."""
        own = {(row.key, row.day): row for row in self._ledger.own_rows() if first <= row.day <= last}
        rows = {}
        if self._store is not None:
            others, stored = await asyncio.to_thread(self._read_stored, self._store, first, last)
            rows = {(row.key, row.day): row for row in others}
            # What is in memory is newer than what is stored of it.
            own = {(row.key, row.day): row for row in stored} | own
        for place, row in own.items():
            rows[place] = rows[place] + row if place in rows else row
        return [rows[place] for place in sorted(rows)]

    def load(self) -> None:
        """Store the journals of killed processes, and read this month's counts, on which budgets depend. Blocks.

        Raises SettingsError if the store is not ours.

        If it is not available now, the log says so, and the thread reads it later.
        """
        if self._store is None:
            return
        try:
            with self._store.session() as session:
                self._store_journals(session)
                self._refresh(session)
        except StoreError as error:
            self._note_failure(error)

    def start(self) -> None:
        """Start the thread. In the process that counts: a fork must neither inherit connections nor share rows."""
        self._process = uuid.uuid4().hex
        if self._store is not None:
            self._open_journal()
            self._thread = threading.Thread(target=self._run, name="usage-writer", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Write what is left, within `LAST_WRITE_S`."""
        self._is_closing.set()
        self._ledger.has_changed.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, LAST_WRITE_S)
        num_unwritten = self._ledger.num_unwritten if self._store is not None else 0
        if num_unwritten:
            place = "is lost" if self._journal is None else f"is in {self._journal.path}, for the next start"
            logger.error("usage of %d keys and days could not be stored and %s", num_unwritten, place)
        if self._journal is not None:
            self._ledger.journal = None
            self._journal.close(is_stored=not num_unwritten)
            self._journal = None

    def _open_journal(self) -> None:
        if self._journal_folder is None:
            return
        try:
            self._journal = self._ledger.journal = Journal(self._journal_folder, self._process)
        except OSError as error:
            logger.warning(
                "no journal of usage in %s (%s): if the process is killed, its last requests are not counted",
                self._journal_folder,
                error.strerror,
            )

    def _note_budget(self) -> None:
        if not self._has_budgets:
            self._has_budgets = True
            self._ledger.has_changed.set()  # the thread waits without a timeout

    def _read_stored(
        self, store: UsageStore, first: date, last: date
    ) -> tuple[Sequence[DailyUsage], Sequence[DailyUsage]]:
        """The rows of other processes, and those of this one."""
        with store.session() as session:
            return session.read(first, last, other_than=self._process), session.read_own(first, last, self._process)

    # ---- the thread

    def _run(self) -> None:
        assert self._store is not None
        is_new = True
        with ExitStack() as stack:
            session: UsageSession | None = None
            while True:
                is_last = self._is_closing.is_set()
                try:
                    session = session or stack.enter_context(self._store.session())
                    self._write(session)
                    self._refresh(session)
                    if is_new:
                        self._store_journals(session)
                        session.delete_before(self._ledger.now().date() - timedelta(days=KEEP_DAYS))
                        is_new = False
                    self._note_success()
                except (StoreError, SettingsError) as error:
                    self._note_failure(error)
                    session = None
                    stack.close()
                if is_last:
                    return
                self._wait()

    def _store_journals(self, session: UsageSession) -> None:
        if self._journal_folder is None:
            return
        try:
            store_journals(self._journal_folder, session)
        except OSError as error:
            logger.warning("journals of usage in %s can't be stored: %s", self._journal_folder, error.strerror)

    def _write(self, session: UsageSession) -> None:
        self._ledger.has_changed.clear()
        if rows := self._ledger.unwritten_rows():
            session.write(self._process, rows)
            self._ledger.mark_written(rows)

    def _refresh(self, session: UsageSession) -> None:
        start = self._ledger.month_start
        self._ledger.set_others(session.read(start, date.max, other_than=self._process))

    def _wait(self) -> None:
        """Return when there is something to do."""
        is_closing = self._is_closing.wait(PAUSE_S if self.is_stored else RETRY_S)
        if self.is_stored and not is_closing:
            self._ledger.has_changed.wait(REFRESH_S if self._has_budgets else None)

    def _note_success(self) -> None:
        if not self.is_stored:
            logger.info("usage is stored again")
        self.is_stored = True

    def _note_failure(self, error: Exception) -> None:
        if self.is_stored:
            logger.error("usage is counted in memory until it can be stored: %s", error)
        self.is_stored = False
