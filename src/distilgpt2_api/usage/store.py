"""The database of usage: SQLite in a folder, or PostgreSQL. Several processes may share it.

Both are used through DB-API drivers: SQLAlchemy is an optional package, and keys must not need it.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import SettingsError, StoreError, StoreFullError
from distilgpt2_api.core.usage import DailyUsage

DATABASE_NAME = "usage.sqlite3"
VERSION = 1
"""A store of another version is neither read nor written."""
BUSY_TIMEOUT_S = 2.0
"""How long a writer waits for SQLite's only write lock, and a connection for a PostgreSQL that doesn't answer."""
KEEP_DAYS = 400
"""Older days are deleted: thirteen months are kept."""
SCHEMA_LOCK = 0x6470_7533
"""PostgreSQL's advisory lock while tables are created: an arbitrary number."""
POSTGRES_SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
DISK_FULL = "53100"
"""PostgreSQL's code."""
UNUSABLE = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_PERM: "the file can't be opened",
    sqlite3.SQLITE_AUTH: "the file can't be opened",
}
"""Conditions that don't pass by themselves, by SQLite's primary error code."""

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


class UsageStore:
    """Opens sessions. Errors of the database become StoreError, or SettingsError if it can't be the right one."""

    def __init__(self, connect: Callable[[], Any], *, name: str, file: Path | None) -> None:
        """`connect` returns a DB-API connection that begins no transaction itself. `name` is shown: no password.

        `file`: SQLite's database; None: PostgreSQL.
        """
        self._connect = connect
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
        except sqlite3.Error as error:
            reason = UNUSABLE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if reason is not None:
                raise SettingsError(f"can't use {self.name} (usage_store): {reason}") from None
            is_full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            raise self._unavailable(error, is_full=is_full) from error
        except Exception as error:
            if self._is_sqlite or not hasattr(error, "sqlstate"):  # every error of psycopg has it
                raise
            raise self._unavailable(error, is_full=error.sqlstate == DISK_FULL) from error

    def _unavailable(self, error: Exception, *, is_full: bool) -> StoreError:
        kind = StoreFullError if is_full else StoreError
        return kind(f"the usage store {self.name} is not available now: {str(error).partition(chr(10))[0]}")


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


def usage_store_at(location: str) -> UsageStore:
    """`location`: a folder, or a URL. Opens and creates nothing yet.

    Raises SettingsError: one line, without the password.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return _sqlite_store(Path(location) / DATABASE_NAME)
    if scheme == "sqlite" and len(rest) > 1:
        return _sqlite_store(Path(rest.removeprefix("/").partition("?")[0]))
    if scheme in POSTGRES_SCHEMES:
        return _postgres_store(f"postgresql://{rest}")
    raise SettingsError("usage_store must be a folder or a URL like postgresql://HOST/NAME")


def _sqlite_store(path: Path) -> UsageStore:
    def connect() -> sqlite3.Connection:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"can't use the folder {path.parent} (usage_store): {error.strerror}") from None
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        # A commit survives the end of the process without a wait for the disk. A power failure may lose the last ones.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    return UsageStore(connect, name=str(path), file=path)


def _postgres_store(url: str) -> UsageStore:
    try:
        # An optional extra.
        import psycopg  # noqa: PLC0415 - the reason stands above
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - the same
    except ImportError:
        raise SettingsError.missing_extra("usage_store with a PostgreSQL URL", "postgres") from None
    try:
        options = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingsError("usage_store must be a folder or a URL like postgresql://HOST/NAME") from None
    timeouts: dict[str, Any] = {
        "connect_timeout": int(BUSY_TIMEOUT_S),
        "tcp_user_timeout": int(1000 * BUSY_TIMEOUT_S),
    }
    name = f"{options.get('host', 'localhost')}/{options.get('dbname', '')}"
    return UsageStore(lambda: psycopg.connect(url, autocommit=True, **timeouts), name=name, file=None)
