"""On PostgreSQL the store is what it is on SQLite; and what only PostgreSQL can do to it."""

# ruff: noqa: F403 - every promise of these modules is to hold here too

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text, update
from tests.batch.store.test_files import *
from tests.batch.store.test_leases import *
from tests.batch.store.test_worker import *

from distilgpt2_api.batch.store.store import open_store
from distilgpt2_api.batch.store.tables import STORE_VERSION
from distilgpt2_api.core.errors import SettingsError, StoreError

del test_a_full_disk_in_the_middle_loses_nothing  # noqa: F821 - SQLite's: it bounds its pages


def test_a_store_of_another_version_is_left_alone_here_too(scene: Any, location: str) -> None:
    with scene.store.writing() as connection:
        connection.execute(update(STORE_VERSION).values(version=2))
    with pytest.raises(SettingsError, match="is of version 2"):
        open_store(location)


def test_a_lost_connection_is_told_and_the_next_call_has_a_new_one(scene: Any) -> None:
    file = scene.upload(b"content")

    def cut() -> None:
        with scene.store.reading() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreError, match="can't be used now"):
        cut()
    assert scene.files.find(file.file_id, caller="alice") == file


def test_of_many_who_claim_at_once_one_has_it(build_scene: Any) -> None:
    """Each from a connection of its own."""
    scenes = [build_scene() for _ in range(8)]
    batch = scenes[0].create()
    barrier = threading.Barrier(len(scenes))
    claimed: list[str] = []

    def claim(number: int) -> None:
        barrier.wait()
        if (found := scenes[number].leases().claim()) is not None:
            claimed.append(found.batch_id)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claimed == [batch.batch_id]


def test_stores_opened_at_once_make_their_tables_once(location: str) -> None:
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def open_one() -> None:
        barrier.wait()
        try:
            open_store(location).close()
        except BaseException as error:  # noqa: BLE001 - carried over into the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
