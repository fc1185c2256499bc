"""The database: location, version and errors."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from distilgpt2_api.batch.store.store import DATABASE_NAME, open_store
from distilgpt2_api.batch.store.tables import STORE_VERSION
from distilgpt2_api.core.errors import SettingsError, StoreError, StoreFullError


def test_the_folder_is_created_readable_only_for_its_owner(scene: Any, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    assert (folder / DATABASE_NAME).is_file()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_sqlite_url_opens_the_same_store(scene: Any, tmp_path: Path) -> None:
    file = scene.upload(b"content")
    again = open_store(f"sqlite:///{tmp_path}/store/{DATABASE_NAME}")
    try:
        assert type(scene.files)(again, scene.limits, scene.clock).find(file.file_id, caller="alice") == file
    finally:
        again.close()


def test_a_store_of_another_version_is_refused_and_unchanged(scene: Any, location: str) -> None:
    """The error is one line with both versions and what to do."""
    with scene.store.writing() as connection:
        connection.execute(update(STORE_VERSION).values(version=2))
    with pytest.raises(SettingsError, match=r"batches\.sqlite3 \(batch_store\) has version 2, .* version 1: name"):
        open_store(location)
    assert scene.store.engine.dialect.has_table(scene.store.engine.connect(), "distilgpt2_files")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("mysql://host/name", "batch_store can't be mysql"),
        ("sqlite://", "can't be in memory"),
        ("sqlite:///:memory:", "can't be in memory"),
        ("://", "must be a folder or a URL"),
        ("postgresql://user:secret@127.0.0.1:1/none", r"can't use the store postgresql\+psycopg://user:\*\*\*@"),
    ],
)
def test_an_invalid_location_is_one_line_without_a_password(location: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        open_store(location)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(SettingsError, match=r"can't use the store .*: file is not a database"):
        open_store(str(tmp_path))


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"can't use the folder .*file/store \(batch_store\): "):
        open_store(str(tmp_path / "file" / "store"))


def bound_pages(connection: sqlite3.Connection, _record: object, *_proxy: object) -> None:
    """Simulates a full disk: the database can't grow."""
    connection.execute("PRAGMA max_page_count = 1")


def test_a_full_disk_is_an_error_and_existing_files_stay(scene: Any, caplog: pytest.LogCaptureFixture) -> None:
    file = scene.upload(b"content")
    event.listen(scene.store.engine, "checkout", bound_pages)
    with pytest.raises(StoreFullError, match="the disk of the store of files and batches is full"):
        scene.upload(b"x" * 1_000_000)
    assert len(caplog.records) == 1
    assert "database or disk is full" in caplog.text
    assert scene.files.find(file.file_id, caller="alice") == file
    assert b"".join(scene.files.chunks(file.file_id)) == b"content"


def test_a_store_that_stays_locked_is_an_error(scene: Any, location: str) -> None:
    """Another connection never ends its transaction."""
    other = sqlite3.connect(Path(location) / DATABASE_NAME, isolation_level=None)
    event.listen(scene.store.engine, "checkout", lambda c, *_: c.execute("PRAGMA busy_timeout = 1"))
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is not available now"):
            scene.upload(b"content")
        assert scene.files.list(caller="alice", purpose=None, after=None, limit=9, is_ascending=True).items == []
        other.execute("ROLLBACK")
        assert scene.upload(b"content").num_bytes == 7
    finally:
        other.close()
