"""Usage is stored behind the requests' back, exactly once, by several processes, and in spite of a store that fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.caller import NO_LIMITS, CallerLimits
from distilgpt2_api.core.errors import BudgetError, InvalidRequestError, SettingsError
from distilgpt2_api.core.usage import Usage
from distilgpt2_api.usage.databases import DATABASE_NAME, usage_store_at
from distilgpt2_api.usage.key_usage import KeyUsage
from distilgpt2_api.usage.ledger import UsageLedger
from distilgpt2_api.usage.store import UsageStore

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
TODAY = NOON.date()
ONE = Usage(num_requests=1, num_prompt_tokens=7, num_completion_tokens=3)


@dataclass
class Keys:
    """A `KeyDirectory`."""

    limits: dict[str, CallerLimits] = field(default_factory=lambda: {"alice": NO_LIMITS})

    @property
    def names(self) -> list[str]:
        return [*self.limits]

    def limits_of(self, name: str) -> CallerLimits:
        return self.limits.get(name, NO_LIMITS)


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> float:
        return self.now.timestamp()


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def build(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., KeyUsage]]:
    """Builds and starts the usage of one more process."""
    built: list[KeyUsage] = []

    def start(store: UsageStore | None = None, **limits: CallerLimits) -> KeyUsage:
        keys = Keys(limits) if limits else Keys()
        usage = KeyUsage(keys, UsageLedger(clock), store or usage_store_at(str(tmp_path)), journal_folder=tmp_path)
        usage.load()
        usage.start()
        built.append(usage)
        return usage

    yield start
    for usage in built:
        asyncio.run(usage.close())


def stored(folder: Path, first: date = date.min, last: date = date.max) -> list[tuple[str, str, Usage]]:
    with usage_store_at(str(folder)).session() as session:
        return [(row.key, row.day.isoformat(), row.usage) for row in session.read(first, last)]


def use(usage: KeyUsage, what: Usage = ONE, key: str = "alice") -> None:
    usage.open_account(key).settle(what)


def used_of(usage: KeyUsage, first: date = TODAY, last: date = TODAY) -> dict[str, Usage]:
    return {row.key: row.usage for row in asyncio.run(usage.read(first, last))}


def test_counts_are_in_the_store_soon_and_once(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    usage = build()
    for _ in range(5):
        use(usage)
    use(usage, Usage(num_refusals=1))
    until(lambda: not usage.ledger.num_unwritten)
    total = Usage(num_requests=5, num_prompt_tokens=35, num_completion_tokens=15, num_refusals=1)
    assert stored(tmp_path) == [("alice", "2026-11-29", total)]
    use(usage)
    until(lambda: not usage.ledger.num_unwritten)
    assert stored(tmp_path) == [("alice", "2026-11-29", total + ONE)]


def test_the_end_writes_what_is_left(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    usage = build()
    use(usage)
    asyncio.run(usage.close())
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]


def test_a_process_goes_on_from_what_others_have_used(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    """One after the other, or at once: each adds its own."""
    first = build()
    use(first)
    asyncio.run(first.close())
    second, third = build(), build()
    use(second)
    use(third)
    until(lambda: not second.ledger.num_unwritten and not third.ledger.num_unwritten)
    assert used_of(second) == used_of(third) == {"alice": ONE + ONE + ONE}
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE + ONE + ONE)]


def test_a_write_whose_answer_was_lost_counts_once(tmp_path: Path, clock: Clock) -> None:
    ledger = UsageLedger(clock)
    ledger.add("alice", ONE)
    with usage_store_at(str(tmp_path)).session() as session:
        for _ in range(2):
            session.write("process", ledger.unwritten_rows())
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]


def test_days_and_keys_are_separate(build: Callable[..., KeyUsage], clock: Clock) -> None:
    usage = build(alice=NO_LIMITS, bob=NO_LIMITS)
    clock.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    use(usage)
    use(usage, key="bob")
    clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    use(usage)
    rows = asyncio.run(usage.read(date(2026, 11, 1), date(2026, 12, 31)))
    assert [(row.key, row.day.isoformat()) for row in rows] == [
        ("alice", "2026-11-30"),
        ("alice", "2026-12-01"),
        ("bob", "2026-11-30"),
    ]
    until(lambda: not usage.ledger.num_unwritten and len(usage.ledger.own_rows()) == 1)  # December's alone
    assert asyncio.run(usage.read(date(2026, 11, 1), date(2026, 12, 31))) == rows


def test_days_of_more_than_thirteen_months_ago_are_deleted(
    build: Callable[..., KeyUsage], clock: Clock, tmp_path: Path
) -> None:
    old = build()
    use(old)
    asyncio.run(old.close())
    clock.now = datetime(2028, 1, 4, tzinfo=UTC)
    build()
    until(lambda: not stored(tmp_path))


# ---- budgets


def test_a_budget_is_never_exceeded_and_begins_again_the_next_day(build: Callable[..., KeyUsage], clock: Clock) -> None:
    usage = build(alice=CallerLimits(tokens_per_day=25, tokens_per_month=1000))
    first, second = usage.open_account("alice"), usage.open_account("alice")
    first.reserve(15)
    with pytest.raises(BudgetError, match="used or reserved 15 tokens of your budget of 25 tokens a day") as refused:
        second.reserve(11)
    assert refused.value.retry_after_s == 12 * 3600
    assert "needs up to 11; the next day begins at 2026-11-30T00:00:00Z" in str(refused.value)
    second.reserve(10)
    first.settle(ONE)
    second.settle(Usage())
    usage.open_account("alice").reserve(15)  # 10 of 25 are used
    clock.now = datetime(2026, 11, 30, tzinfo=UTC)
    usage.open_account("alice").reserve(10)


def test_a_month_ends_with_its_last_day(build: Callable[..., KeyUsage], clock: Clock) -> None:
    usage = build(alice=CallerLimits(tokens_per_month=10))
    clock.now = datetime(2026, 12, 31, 23, tzinfo=UTC)
    use(usage)
    with pytest.raises(BudgetError, match="the next month begins at 2027-01-01T00:00:00Z") as refused:
        usage.open_account("alice").reserve(1)
    assert refused.value.retry_after_s == 3600


def test_a_request_above_the_whole_budget_is_wrong(build: Callable[..., KeyUsage]) -> None:
    usage = build(alice=CallerLimits(tokens_per_day=10))
    with pytest.raises(InvalidRequestError, match=r"needs up to 11 .* your budget is 10 tokens a day"):
        usage.open_account("alice").reserve(11)


def test_a_budget_holds_after_a_restart_and_for_all_processes(build: Callable[..., KeyUsage]) -> None:
    budget = CallerLimits(tokens_per_day=25)
    first = build(alice=budget)
    use(first)
    asyncio.run(first.close())
    second, third = build(alice=budget), build(alice=budget)
    with pytest.raises(BudgetError):
        second.open_account("alice").reserve(16)  # at once: the counts were read at the start
    use(second)
    until(lambda: not second.ledger.num_unwritten)
    third.open_account("alice").reserve(1)  # from now on it looks at the others' counts
    until(lambda: third.budgets_of("alice")[0].num_used == 21)


def test_a_new_limit_applies_to_the_next_request(build: Callable[..., KeyUsage]) -> None:
    usage = build(alice=CallerLimits(tokens_per_day=10))
    use(usage)
    with pytest.raises(BudgetError):
        usage.open_account("alice").reserve(1)
    usage._keys.limits["alice"] = CallerLimits(tokens_per_day=11)  # type: ignore[attr-defined]  # the fake's
    usage.open_account("alice").reserve(1)


# ---- a store that fails


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with closing(sqlite3.connect(folder / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that users need are milliseconds."""
    monkeypatch.setattr("distilgpt2_api.usage.databases.BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr("distilgpt2_api.usage.key_usage.RETRY_S", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_is_written_later(
    build: Callable[..., KeyUsage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usage = build()
    use(usage)
    until(lambda: not usage.ledger.num_unwritten)
    with locked(tmp_path):
        use(usage)
        until(lambda: not usage.is_stored)
        use(usage)
        assert usage.ledger.num_unwritten == 1
    until(lambda: usage.is_stored and not usage.ledger.num_unwritten)
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE + ONE + ONE)]
    [line] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("usage is counted in memory until it can be stored: the usage store ")
    assert line.endswith("is not available now: database is locked")


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_locked_at_the_start_does_not_stop_the_service(
    build: Callable[..., KeyUsage], tmp_path: Path
) -> None:
    with locked(tmp_path):
        usage = build()
        assert not usage.is_stored
        use(usage)
    until(lambda: not usage.ledger.num_unwritten)
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]


@pytest.mark.usefixtures("impatient")
def test_a_store_that_cannot_be_written_at_the_start_is_read(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    first = build(alice=CallerLimits(tokens_per_day=10))
    use(first)
    asyncio.run(first.close())
    with locked(tmp_path), pytest.raises(BudgetError):
        build(alice=CallerLimits(tokens_per_day=10)).open_account("alice").reserve(1)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_keeps_counts_in_memory(
    build: Callable[..., KeyUsage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real = usage_store_at(str(tmp_path))
    max_pages = [2**30]

    def connect() -> Any:
        connection = real._connect()
        connection.execute(f"PRAGMA max_page_count = {max_pages[0]}")
        return connection

    usage = build(UsageStore(connect, real._find_fault, name="full", file=tmp_path))
    until(lambda: usage.is_stored)
    with real.session() as session:
        [[num_pages]] = session._execute("PRAGMA page_count")
    max_pages[0] = num_pages
    full = build(UsageStore(connect, real._find_fault, name="full", file=tmp_path))
    for number in range(500):
        use(full, key=f"key-{number}")
    until(lambda: not full.is_stored)
    assert full.ledger.num_unwritten > 0
    assert "database or disk is full" in caplog.text
    max_pages[0] = 2**30
    until(lambda: not full.ledger.num_unwritten)
    assert [usage for _, _, usage in stored(tmp_path)] == [ONE] * 500


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    usage = KeyUsage(Keys(), UsageLedger(), usage_store_at(str(tmp_path)))
    with pytest.raises(SettingsError, match=r"can't use .*usage.sqlite3 \(usage_store\): it is another program's"):
        usage.load()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no database at all" * 100, "it is not an SQLite database"), (None, "the file can't be opened")],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / DATABASE_NAME
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=reason):
        KeyUsage(Keys(), UsageLedger(), usage_store_at(str(tmp_path))).load()


def test_a_store_of_another_version_is_refused(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    asyncio.run(build().close())
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as other, other:
        other.execute("UPDATE distilgpt2_usage_version SET version = 99")
    with pytest.raises(SettingsError, match="has version 99, but this program needs version 1"):
        KeyUsage(Keys(), UsageLedger(), usage_store_at(str(tmp_path))).load()


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"can't use the folder .*file/usage \(usage_store\): Not a directory"):
        KeyUsage(Keys(), UsageLedger(), usage_store_at(str(tmp_path / "file" / "usage"))).load()


@pytest.mark.parametrize("location", ["mysql://host/name", "sqlite://", "postgresql://host/name?secret=1"])
def test_an_unknown_location_is_refused_without_its_password(location: str) -> None:
    with pytest.raises(SettingsError, match=r"^usage_store must be a folder or a URL like postgresql://HOST/NAME$"):
        usage_store_at(location)


def test_a_database_server_that_is_away_does_not_stop_the_service(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    usage = KeyUsage(Keys(), UsageLedger(clock), usage_store_at("postgresql://user:secret@127.0.0.1:1/name"))
    usage.load()
    assert not usage.is_stored
    assert "the usage store 127.0.0.1/name is not available now" in caplog.text
    assert "secret" not in caplog.text


def test_without_a_store_counts_live_in_memory(clock: Clock) -> None:
    usage = KeyUsage(Keys(), UsageLedger(clock), None)
    usage.load()
    usage.start()
    use(usage)
    assert used_of(usage) == {"alice": ONE}
    asyncio.run(usage.close())


# ---- the journal of a process that is killed


def die(usage: KeyUsage) -> None:
    """Ends as a killed process does: the kernel closes its files, and nothing else happens."""
    usage._is_closing.set()
    usage.ledger.has_changed.set()
    assert usage._thread is not None
    usage._thread.join(10)
    assert usage._journal is not None
    usage._journal.close(is_stored=False)
    usage._journal = usage.ledger.journal = None


@pytest.mark.usefixtures("impatient")
def test_the_next_process_stores_the_journal_once(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    killed = build()
    until(lambda: killed.is_stored)
    use(killed)
    until(lambda: not killed.ledger.num_unwritten)
    with locked(tmp_path):
        use(killed)
        use(killed, key="bob")
        die(killed)
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]
    [journal] = tmp_path.glob("usage-*.journal")
    content = journal.read_bytes()
    for _ in range(2):
        usage = build(alice=CallerLimits(tokens_per_day=25))
        assert not journal.exists()
        assert stored(tmp_path) == [("alice", "2026-11-29", ONE + ONE), ("bob", "2026-11-29", ONE)]
        with pytest.raises(BudgetError):
            usage.open_account("alice").reserve(6)
        journal.write_bytes(content)  # as if the first had been killed before it removed the file


def test_the_journal_of_a_living_process_is_left_alone(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    build()
    build()
    assert len([*tmp_path.glob("usage-*.journal")]) == 2


def test_a_journal_is_removed_at_the_end(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    usage = build()
    use(usage)
    asyncio.run(usage.close())
    assert [path.name for path in tmp_path.glob("*.journal")] == []


@pytest.mark.usefixtures("impatient")
def test_what_cannot_be_stored_at_the_end_is_kept_for_the_next_start(
    build: Callable[..., KeyUsage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usage = build()
    until(lambda: usage.is_stored)
    with locked(tmp_path):
        use(usage)
        asyncio.run(usage.close())
    assert "usage of 1 keys and days could not be stored and is in " in caplog.text
    build()
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]


def test_a_journal_uses_the_place_of_a_past_month_again(
    build: Callable[..., KeyUsage], tmp_path: Path, clock: Clock
) -> None:
    usage = build()
    for month in (1, 2, 3):
        clock.now = datetime(2027, month, 1, tzinfo=UTC)
        use(usage)
        until(lambda: not usage.ledger.num_unwritten and len(usage.ledger.own_rows()) == 1)
    assert usage._journal is not None
    assert usage._journal.path.stat().st_size <= 2 * 128


def test_a_damaged_journal_does_not_stop_the_service(build: Callable[..., KeyUsage], tmp_path: Path) -> None:
    (tmp_path / "usage-damaged.journal").write_bytes(b"\xff" * 300)
    (tmp_path / "usage-empty.journal").write_bytes(b"")
    use(build())
    until(lambda: stored(tmp_path) == [("alice", "2026-11-29", ONE)])


def test_without_a_folder_for_the_journal_usage_is_counted(
    build: Callable[..., KeyUsage], tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    usage = KeyUsage(
        Keys(), UsageLedger(clock), usage_store_at(str(tmp_path)), journal_folder=tmp_path / "file" / "folder"
    )
    usage.load()
    usage.start()
    use(usage)
    asyncio.run(usage.close())
    assert "no journal of usage in " in caplog.text
    assert stored(tmp_path) == [("alice", "2026-11-29", ONE)]
