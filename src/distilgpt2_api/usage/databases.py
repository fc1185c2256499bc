"""Opens the database of usage: SQLite in a folder, or PostgreSQL. Only a service with API keys imports it."""

import sqlite3
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.usage.store import Fault, UsageStore

DATABASE_NAME = "usage.sqlite3"
BUSY_TIMEOUT_S = 2.0
"""How long a writer waits for SQLite's only write lock, and a connection for a PostgreSQL that doesn't answer."""
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

    return UsageStore(connect, _sqlite_fault, name=str(path), file=path)


def _sqlite_fault(error: Exception) -> Fault | None:
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", 0)
    return Fault(unusable=UNUSABLE.get(code & 0xFF), is_full=code == sqlite3.SQLITE_FULL)


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
    return UsageStore(lambda: psycopg.connect(url, autocommit=True, **timeouts), _postgres_fault, name=name, file=None)


def _postgres_fault(error: Exception) -> Fault | None:
    if not hasattr(error, "sqlstate"):  # every error of psycopg has it
        return None
    return Fault(is_full=error.sqlstate == DISK_FULL)
