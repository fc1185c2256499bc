"""Keys are added and removed while the service runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, remove_from_key_file

ALICE, BOB = "dg2-alice-0123456789", "dg2-bob-0123456789ab"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    add_to_key_file(path, describe_key("alice", ALICE, CallerLimits(tokens_per_s=5.0)))
    return path


def names(ring: KeyRing) -> list[str]:
    found = [ring.find(key.encode()) for key in (ALICE, BOB)]
    return [caller.name for caller in found if caller is not None]


def test_a_refresh_adds_and_removes_keys(file: Path) -> None:
    ring = KeyRing((), file=file)
    assert names(ring) == ["alice"]
    add_to_key_file(file, describe_key("bob", BOB, CallerLimits()))
    assert names(ring) == ["alice"]
    ring.refresh()
    assert names(ring) == ["alice", "bob"]
    remove_from_key_file(file, "alice")
    ring.refresh()
    assert names(ring) == ["bob"]
    remove_from_key_file(file, "bob")
    ring.refresh()
    assert names(ring) == [], "removing the last key does not open the service"


def test_a_change_of_the_same_length_is_noticed(file: Path) -> None:
    ring = KeyRing((), file=file)
    text = file.read_text()
    file.write_text(text.replace("alice", "carol"))
    os.utime(file, ns=(1, 1))
    ring.refresh()
    assert names(ring) == ["carol"]


@pytest.mark.parametrize("content", ["[keys.alice", '[keys.alice]\nsha256 = "x"', "\x00", None])
def test_an_invalid_file_changes_nothing_and_is_reported_once(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing((), file=file)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    for _ in range(3):
        ring.refresh()
    assert names(ring) == ["alice"]
    [message] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert message.startswith("the API keys are unchanged: the file of API keys")
    add_to_key_file(file.with_name("new"), describe_key("bob", BOB, CallerLimits()))
    file.with_name("new").replace(file)
    ring.refresh()
    assert names(ring) == ["bob"]


def test_keys_of_setting_and_file_work_together_and_must_differ(file: Path) -> None:
    bob = ApiKey(name="bob", digest=digest_of(BOB.encode()))
    assert names(KeyRing((bob,), file=file)) == ["alice", "bob"]
    for clash in (
        ApiKey(name="alice", digest=digest_of(BOB.encode())),
        ApiKey(name="bob", digest=digest_of(ALICE.encode())),
    ):
        with pytest.raises(SettingsError, match="api_keys and the file of API keys"):
            KeyRing((clash,), file=file)


def test_a_missing_file_stops_startup(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the file of API keys .*keys\.toml is missing"):
        KeyRing((), file=tmp_path / "keys.toml")


def test_a_world_readable_file_is_warned_about(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeyRing((), file=file)
    assert not caplog.messages
    file.chmod(0o644)
    ring = KeyRing((), file=file)
    assert "every user of this machine can access" in caplog.messages[0]
    caplog.clear()
    file.write_text(f"{file.read_text()}\n")
    ring.refresh()
    assert "every user of this machine can access" in caplog.messages[-1]


def test_a_keys_own_rate_ignores_the_default_burst(file: Path) -> None:
    ring = KeyRing((), file=file, default_limits=CallerLimits(max_requests=2, tokens_per_s=1.0, burst_tokens=9))
    caller = ring.find(ALICE.encode())
    assert caller is not None
    assert caller.limits == CallerLimits(max_requests=2, tokens_per_s=5.0)


def test_a_key_of_the_file_may_have_a_minimum_priority(file: Path) -> None:
    file.write_text(f"{file.read_text()}min_priority = -3\n")
    caller = KeyRing((), file=file).find(ALICE.encode())
    assert caller is not None
    assert caller.limits.min_priority == -3


def test_a_running_service_watches_the_file(
    open_client: Callable[..., Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing((), file=file)
    monkeypatch.setattr(KeyRing.watch, "__kwdefaults__", {"interval_s": 0.0})
    client = open_client(access=Access(keys=ring))
    bearer = {"authorization": f"Bearer {ALICE}"}
    assert client.get("/v1/models", headers=bearer).status_code == 200
    remove_from_key_file(file, "alice")

    async def until_refused() -> None:
        async with asyncio.timeout(10):
            while (await client._http.get("/v1/models", headers=bearer)).status_code != 401:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)

    client.runner.run(until_refused())


def test_a_key_is_valid_until_it_expires(tmp_path: Path) -> None:
    """Without a reload of the file."""
    end = datetime(2027, 1, 31, tzinfo=UTC)
    now = end - timedelta(seconds=1)
    path = tmp_path / "keys.toml"
    add_to_key_file(path, describe_key("alice", ALICE, CallerLimits(), expires=end))
    add_to_key_file(path, describe_key("bob", BOB, CallerLimits()))
    ring = KeyRing((), file=path, clock=lambda: now)
    assert names(ring) == ["alice", "bob"]
    now = end
    assert names(ring) == ["bob"]
