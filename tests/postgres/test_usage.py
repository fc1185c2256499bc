"""The usage store on PostgreSQL, in the database of files and batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import psycopg
import pytest

from distilgpt2_api.batch.store.store import open_store
from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.core.errors import BudgetError, SettingsError
from distilgpt2_api.core.usage import DailyUsage, Usage
from distilgpt2_api.usage.databases import usage_store_at
from distilgpt2_api.usage.key_usage import KeyUsage
from distilgpt2_api.usage.ledger import UsageLedger

ONE = Usage(num_requests=1, num_prompt_tokens=7, num_completion_tokens=3)


class Keys:
    """A `KeyDirectory`."""

    names = ("alice",)

    def limits_of(self, _name: str) -> CallerLimits:
        return CallerLimits(tokens_per_day=25)


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def start(location: str) -> KeyUsage:
    usage = KeyUsage(Keys(), UsageLedger(), usage_store_at(location))
    usage.load()
    usage.start()
    return usage


def stored(location: str) -> list[DailyUsage]:
    with usage_store_at(location).session() as session:
        return [*session.read(date.min, date.max)]


def test_processes_share_counts_and_budgets(location: str) -> None:
    open_store(location).close()
    first, second = start(location), start(location)
    first.open_account("alice").settle(ONE)
    second.open_account("alice").settle(ONE)
    until(lambda: not first.ledger.num_unwritten and not second.ledger.num_unwritten)
    assert [(row.key, row.usage) for row in stored(location)] == [("alice", ONE + ONE)]
    third = start(location)
    with pytest.raises(BudgetError):
        third.open_account("alice").reserve(6)
    today = third.ledger.now().date()
    assert [row.usage for row in asyncio.run(first.read(today, today))] == [ONE + ONE]
    for usage in (first, second, third):
        asyncio.run(usage.close())


def test_tables_are_created_once_by_processes_that_start_together(location: str) -> None:
    errors: list[Exception] = []

    def load() -> None:
        try:
            stored(location)
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_lost_connection_loses_no_count(location: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("distilgpt2_api.usage.key_usage.RETRY_S", 0.01)
    usage = start(location)
    usage.open_account("alice").settle(ONE)
    until(lambda: not usage.ledger.num_unwritten)
    with psycopg.connect(location.replace("+psycopg", ""), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    usage.open_account("alice").settle(ONE)
    until(lambda: not usage.ledger.num_unwritten)
    assert [row.usage for row in stored(location)] == [ONE + ONE]
    asyncio.run(usage.close())


def test_a_store_of_another_version_is_refused(location: str) -> None:
    stored(location)
    with psycopg.connect(location.replace("+psycopg", "")) as other:
        other.execute("UPDATE distilgpt2_usage_version SET version = 99")
    with pytest.raises(SettingsError, match="has version 99"):
        stored(location)
