"""Usage in a database, which several processes may share. `databases.py` opens it: SQLite in a folder, or PostgreSQL.

Both are used through DB-API drivers: SQLAlchemy is an optional package, and keys must not need it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import SettingsError, StoreError, StoreFullError
from distilgpt2_api.core.usage import DailyUsage

VERSION = 1
"""A store of another version is neither read nor written."""
KEEP_DAYS = 400
"""Older days are deleted: thirteen months are kept."""
SCHEMA_LOCK = 0x6470_7533
"""PostgreSQL's advisory lock while tables are created: an arbitrary number."""

VERSION_TABLE = "CREATE TABLE distilgpt2_usage_version (version INTEGER PRIMARY KEY)"
USAGE_TABLE = (
    "CREATE TABLE distilgpt2_usage ("
    "day VARCHAR(10) NOT NULL, key_name VARCHAR(64) NOT NULL, process VARCHAR(32) NOT NULL, "
    "num_requests BIGINT NOT NULL, num_prompt_tokens BIGINT NOT NULL, num_completion_tokens BIGINT NOT NULL, "
    "num_refusals BIGINT NOT NULL, last_used_s DOUBLE PRECISION NOT NULL, "
    "PRIMARY KEY (day, key_name, process))"
)
"""`process`: a random id. Each process writes its own rows, with its counts since it started."""
WRITE = (
    "INSERT INTO distilgpt2_usage (key_name, day, num_requests, num_prompt_tokens, num_completion_tokens, "
    "num_refusals, last_used_s, process) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (day, key_name, process) DO UPDATE SET num_requests = excluded.num_requests, "
    "num_prompt_tokens = excluded.num_prompt_tokens, "
    "num_completion_tokens = excluded.num_completion_tokens, num_refusals = excluded.num_refusals, "
    "last_used_s = excluded.last_used_s"
)
READ = (
    "SELECT key_name, day, CAST(SUM(num_requests) AS BIGINT), CAST(SUM(num_prompt_tokens) AS BIGINT), "
    "CAST(SUM(num_completion_tokens) AS BIGINT), CAST(SUM(num_refusals) AS BIGINT), MAX(last_used_s) "
    "FROM distilgpt2_usage WHERE day >= ? AND day <= ? AND process {} ? "
    "GROUP BY key_name, day ORDER BY key_name, day"
)
READ_OTHERS, READ_OWN = READ.format("<>"), READ.format("=")
FOREIGN = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'distilgpt2%'"
FIND_IN_SQLITE = "SELECT 1 FROM sqlite_master WHERE name = 'distilgpt2_usage'"
FIND_IN_POSTGRES = (
    "SELECT 1 FROM pg_tables WHERE tablename = 'distilgpt2_usage' AND schemaname = ANY (current_schemas(false))"
)
"""A query sees what another process has created meanwhile; `to_regclass` may remember that there was no table."""
LAST_USES = "SELECT key_name, MAX(last_used_s) FROM distilgpt2_usage GROUP BY key_name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error of the database, without its driver's type."""

    unusable: str | None = None
    """Why the database can't be used, if that doesn't pass by itself."""
    is_full: bool = False


class UsageStore:
    """Opens sessions. Errors of the database become StoreError, or SettingsError if it can't be the right one."""

    def __init__(
        self,
        connect: Callable[[], Any],
        find_fault: Callable[[Exception], Fault | None],
        *,
        name: str,
        file: Path | None,
    ) -> None:
        """`connect` returns a DB-API connection that begins no transaction itself. `find_fault` returns None for errors
        that are not the database's. `name` is shown: no password.

        `file`: SQLite's database; None: PostgreSQL.
        """
        self._connect = connect
        self._find_fault = find_fault
        self.name = name
        self.file = file
        self._is_sqlite = file is not None

    @property
    def is_missing(self) -> bool:
        """Whether a session would create it. Of PostgreSQL's databases that is not known."""
        return self.file is not None and not self.file.exists()

    @contextmanager
    def session(self) -> Iterator["UsageSession"]:
        """A connection, for the thread that opens it. Creates the tables if there are none."""
        with self._translated():
            connection = self._connect()
        try:
            session = UsageSession(connection, self._translated, is_sqlite=self._is_sqlite)
            session.prepare(self.name)
            yield session
        finally:
            connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            fault = self._find_fault(error)
            if fault is None:
                raise
            if fault.unusable is not None:
                raise SettingsError(f"can't use {self.name} (usage_store): {fault.unusable}") from None
            kind = StoreFullError if fault.is_full else StoreError
            first_line = str(error).partition("\n")[0]
            raise kind(f"the usage store {self.name} is not available now: {first_line}") from error


class UsageSession:
    """One connection. Each method is a transaction."""

    def __init__(self, connection: Any, translated: Callable[[], Any], *, is_sqlite: bool) -> None:
        self._connection = connection
        self._translated = translated
        self._is_sqlite = is_sqlite

    def prepare(self, name: str) -> None:
        is_new = not self._has_tables()
        with self._transaction(is_writing=is_new):
            if is_new:
                self._create_tables(name)
            [(version,)] = self._execute("SELECT MAX(version) FROM distilgpt2_usage_version")
        if version != VERSION:
            raise SettingsError(
                f"the usage store {name} (usage_store) has version {version}, but this program needs version {VERSION}:"
                " name another store, or use the version of the program that created it"
            )

    def write(self, process: str, rows: Iterable[DailyUsage]) -> None:
        """Replace this process's rows by their present state."""
        values = [(*row.columns, process) for row in rows]
        with self._transaction(is_writing=True):
            self._connection.cursor().executemany(self._sql(WRITE), values)

    def read(self, first: date, last: date, *, other_than: str = "") -> Sequence[DailyUsage]:
        """Sums over processes, by key and day, in order; without one process."""
        return self._read(READ_OTHERS, first, last, other_than)

    def read_own(self, first: date, last: date, process: str) -> Sequence[DailyUsage]:
        """One process's rows."""
        return self._read(READ_OWN, first, last, process)

    def last_uses(self) -> dict[str, float]:
        """Unix time of each key's last request."""
        with self._transaction(is_writing=False):
            return dict(self._execute(LAST_USES))

    def delete_before(self, day: date) -> None:
        with self._transaction(is_writing=True):
            self._execute("DELETE FROM distilgpt2_usage WHERE day < ?", day.isoformat())

    def _read(self, statement: str, first: date, last: date, process: str) -> Sequence[DailyUsage]:
        with self._transaction(is_writing=False):
            found = self._execute(statement, first.isoformat(), last.isoformat(), process)
        return [DailyUsage.from_columns(columns) for columns in found]

    def _has_tables(self) -> bool:
        with self._translated():
            return bool(self._execute(FIND_IN_SQLITE if self._is_sqlite else FIND_IN_POSTGRES))

    def _create_tables(self, name: str) -> None:
        if not self._is_sqlite:
            self._execute("SELECT pg_advisory_xact_lock(?)", SCHEMA_LOCK)
        if self._has_tables():  # another process has created them meanwhile
            return
        if self._is_sqlite and self._execute(FOREIGN):
            raise SettingsError(f"can't use {name} (usage_store): it is another program's database")
        self._execute(VERSION_TABLE)
        self._execute(USAGE_TABLE)
        self._execute("INSERT INTO distilgpt2_usage_version (version) VALUES (?)", VERSION)

    @contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[None]:
        with self._translated():
            # In SQLite, a transaction that starts with a read can't wait for another writer later.
            self._execute("BEGIN IMMEDIATE" if is_writing and self._is_sqlite else "BEGIN")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                with suppress(Exception):  # the database may have ended the transaction, or the connection
                    self._execute("ROLLBACK")
                raise

    def _execute(self, statement: str, *values: object) -> list[Any]:
        cursor = self._connection.execute(self._sql(statement), values)
        return list(cursor.fetchall()) if cursor.description else []

    def _sql(self, statement: str) -> str:
        return statement if self._is_sqlite else statement.replace("?", "%s")
