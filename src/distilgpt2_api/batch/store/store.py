"""The database of files and batches: SQLite in a folder, or PostgreSQL."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from distilgpt2_api.batch.store.tables import METADATA, STORE_VERSION, VERSION
from distilgpt2_api.core.errors import SettingsError, StoreError, StoreFullError

logger = logging.getLogger(__name__)

DATABASE_NAME = "batches.sqlite3"
BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for SQLite's only write lock, and a connection for a PostgreSQL that doesn't answer."""
READING = "distilgpt2_reading"
SCHEMA_LOCK = 0x6470_7432
"""PostgreSQL's advisory lock while tables are created: an arbitrary number."""
POSTGRES_DISK_FULL = "53100"


class Store:
    """Owns the connections. Thread-safe; several processes may share a database.

    Data is on disk when `writing` returns. Errors of the database become StoreError.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Reads a consistent snapshot, without blocking writers."""
        with self._translated(), self.engine.connect() as connection:
            yield connection.execution_options(**{READING: True})

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Writes all or nothing."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a bug here, not a failure of the database
        except DBAPIError as error:
            logger.error("the store of files and batches failed: %s", _first_line(error))  # noqa: TRY400 - one line
            if _is_full(error):
                raise StoreFullError("the disk of the store of files and batches is full") from error
            raise StoreError("the store of files and batches is not available now") from error


def open_store(location: str) -> Store:
    """`location`: a folder, created if missing, or a URL. Raises SettingsError: one line, without the password."""
    url = _url_of(location)
    name = url.render_as_string(hide_password=True)
    engine = _build_engine(url)
    try:
        with engine.begin() as connection:
            _check_version(connection, name)
    except SettingsError:
        engine.dispose()
        raise
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        reason = _first_line(error) if isinstance(error, DBAPIError) else str(error)
        raise SettingsError(f"can't use the store {name} (batch_store): {reason}") from None
    engine.dispose()  # a fork must not inherit connections
    return Store(engine)


def _url_of(location: str) -> URL:
    if "://" not in location:
        folder = Path(location)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"can't use the folder {folder} (batch_store): {error.strerror}") from None
        return URL.create("sqlite", database=str(folder / DATABASE_NAME))
    try:
        url = make_url(location)
    except ArgumentError:
        raise SettingsError("batch_store must be a folder or a URL like postgresql+psycopg://HOST/NAME") from None
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise SettingsError(f"batch_store can't be {url.drivername}: use sqlite or postgresql+psycopg")
    if url.drivername == "sqlite" and url.database in {None, "", ":memory:"}:
        raise SettingsError("batch_store can't be in memory, which ends with the process: name a file")
    return url


def _build_engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {"connect_timeout": int(BUSY_TIMEOUT_S), "tcp_user_timeout": int(1000 * BUSY_TIMEOUT_S)}
    try:
        return create_engine(url, pool_pre_ping=True, connect_args=options)
    except ImportError:
        raise SettingsError.missing_extra("batch_store with a PostgreSQL URL", "postgres") from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` starts transactions, not the driver
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that starts with a read can't wait for another writer later.
    is_reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


def _check_version(connection: Connection, name: str) -> None:
    """Creates the tables if there are none."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SCHEMA_LOCK})
    if not inspect(connection).has_table(STORE_VERSION.name):
        METADATA.create_all(connection)
        connection.execute(insert(STORE_VERSION).values(version=VERSION))
    version = connection.execute(select(STORE_VERSION.c.version)).scalar()
    if version != VERSION:
        raise SettingsError(
            f"the store {name} (batch_store) has version {version}, but this program needs version {VERSION}: name"
            " another store, or use the version of the program that created it"
        )


def _is_full(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode == sqlite3.SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == POSTGRES_DISK_FULL


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).partition("\n")[0]
