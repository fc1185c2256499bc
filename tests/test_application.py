"""Parts that the application builds from settings: access, and the usage of keys."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from distilgpt2_api.application import build_access, build_key_usage
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.core.usage import Usage
from distilgpt2_api.settings import Settings
from distilgpt2_api.usage.key_usage import KeyUsage

KEY = "dg2-alice-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name in {"HOST", "PORT"} or name.startswith("DISTILGPT2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DISTILGPT2_API_KEYS", f"alice:{KEY}")
    monkeypatch.setenv("DISTILGPT2_HOME", str(tmp_path / "home"))


def build() -> KeyUsage:
    settings = Settings()
    access = build_access(settings)
    assert access.keys is not None
    return build_key_usage(settings, access.keys)


def test_usage_is_stored_in_the_default_folder(tmp_path: Path) -> None:
    usage = build()
    usage.start()
    usage.open_account("alice").settle(Usage(num_requests=1))
    asyncio.run(usage.close())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["usage.sqlite3"]


def test_a_default_folder_that_cannot_be_used_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "home").write_text("")
    usage = build()
    usage.start()
    usage.open_account("alice").settle(Usage(num_requests=1))
    assert usage.ledger.since_start("alice").num_requests == 1
    assert not usage.is_stored
    [line] = caplog.messages
    assert line.startswith("usage of API keys is counted in memory only: can't use the folder ")
    assert line.endswith("; the setting usage_store names a store")


def test_a_chosen_store_that_cannot_be_used_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILGPT2_USAGE_STORE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"can't use the folder .*file \(usage_store\): File exists"):
        build()


def test_an_operator_key_that_does_not_exist_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISTILGPT2_OPERATOR_KEYS", "alice,olga")
    assert build_access(Settings()).operators == {"alice", "olga"}
    assert caplog.messages == ["operator_keys names keys that don't exist now: olga"]
