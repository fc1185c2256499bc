"""The store's tests on PostgreSQL, and cases that only PostgreSQL has."""

# ruff: noqa: F403 - all tests of these modules run here too

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

del test_a_full_disk_during_a_batch_loses_nothing  # noqa: F821 - limits SQLite's pages


def test_a_store_of_another_version_is_refused(scene: Any, location: str) -> None:
    with scene.store.writing() as connection:
        connection.execute(update(STORE_VERSION).values(version=2))
    with pytest.raises(SettingsError, match="has version 2"):
        open_store(location)


def test_a_lost_connection_is_an_error_and_the_next_call_gets_a_new_one(scene: Any) -> None:
    file = scene.upload(b"content")

    def cut() -> None:
        with scene.store.reading() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreError, match="is not available now"):
        cut()
    assert scene.files.find(file.file_id, caller="alice") == file


def test_of_many_concurrent_claims_one_succeeds(build_scene: Any) -> None:
    """Each over its own connection."""
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


def test_stores_opened_concurrently_create_their_tables_once(location: str) -> None:
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def open_one() -> None:
        barrier.wait()
        try:
            open_store(location).close()
        except BaseException as error:  # noqa: BLE001 - asserted in the test's thread
            failures.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
