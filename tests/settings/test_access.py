"""API keys and origins in settings: parsed, validated, and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distilgpt2_api.core.caller import digest_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings

KEY, OTHER = "dg2-0123456789abcdef", "dg2-another-key-0123"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name in {"HOST", "PORT"} or name.startswith("DISTILGPT2_"):
            monkeypatch.delenv(name)


def test_settings_keep_the_names_and_hashes_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_API_KEYS", f"alice:{KEY}, {OTHER}\n")
    settings = Settings()
    assert [(key.name, key.digest) for key in settings.api_keys] == [
        ("alice", digest_of(KEY.encode())),
        ("key-2", digest_of(OTHER.encode())),
    ]
    assert KEY not in repr(settings) + str(settings.describe())
    [shown] = [setting.value for setting in settings.describe() if setting.name == "api_keys"]
    assert shown == "(hidden)"


def test_a_settings_file_may_list_keys_and_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'api_keys = ["alice:{KEY}", "{OTHER}"]\ncors_origins = ["https://a.example"]\n')
    monkeypatch.setenv("DISTILGPT2_CONFIG_FILE", str(file))
    assert [key.name for key in Settings().api_keys] == ["alice", "key-2"]
    assert Settings().cors_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("API_KEYS", "secret-short", "key number 1 has 12 characters, must have 16 to 256"),
        ("API_KEYS", f"alice:{KEY},bob:secret", "the key of bob has 6 characters"),
        ("API_KEYS", "k" * 257, "key number 1 has 257 characters"),
        ("API_KEYS", f"secret name:{KEY}", "key number 1 has an invalid name"),
        ("API_KEYS", f"a:{KEY},a:{OTHER}", "two keys have the name a"),
        ("API_KEYS", f"a:{KEY},b:{KEY}", "a and b are the same key"),
        ("API_KEYS", "secret with spaces in it", "must consist of ASCII characters without spaces"),
        ("API_KEYS", "secret-with-\N{SNOWMAN}-in-it", "must consist of ASCII characters without spaces"),
        ("API_KEYS", ",", "the list contains no key"),
        ("METRICS_API_KEY", "secret", "the key has 6 characters"),
    ],
)
def test_a_bad_key_is_one_line_that_does_not_show_it(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DISTILGPT2_{name}", value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    message = str(caught.value)
    assert message.startswith(f"DISTILGPT2_{name} (environment): ")
    assert expected in message
    assert "\n" not in message
    assert not any(secret in message for secret in ("secret", KEY, OTHER))


def test_the_metrics_key_is_valid_only_for_the_metrics() -> None:
    assert Settings(metrics_api_key=OTHER, api_keys=KEY).metrics_api_key is not None
    with pytest.raises(SettingsError, match="metrics_api_key is also one of api_keys"):
        Settings(metrics_api_key=KEY, api_keys=KEY)
    with pytest.raises(SettingsError, match="public_metrics and metrics_api_key exclude each other"):
        Settings(metrics_api_key=KEY, public_metrics=True)


@pytest.mark.parametrize("origin", ["*", "https://a.example", "http://localhost:3000", "http://[::1]:3000"])
def test_an_origin_is_accepted_as_browsers_write_it(origin: str) -> None:
    settings = Settings(cors_origins=f"{origin}, https://b.example")
    assert settings.cors_origins == (origin, "https://b.example")
    [shown] = [setting.value for setting in settings.describe() if setting.name == "cors_origins"]
    assert shown == f"{origin},https://b.example"


@pytest.mark.parametrize(
    "origin", ["a.example", "https://a.example/", "https://A.example", "null", "https://*.a", "**"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="an origin must be"):
        Settings(cors_origins=origin)


def test_operator_keys_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_OPERATOR_KEYS", "olga, key-2")
    assert Settings().operator_keys == ("olga", "key-2")
    monkeypatch.setenv("DISTILGPT2_OPERATOR_KEYS", "olga,a b")
    with pytest.raises(SettingsError, match="'a b' can't be a key's name"):
        Settings()


def test_the_usage_store_follows_the_batch_store_and_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its password is never shown."""
    monkeypatch.setenv("DISTILGPT2_HOME", str(tmp_path))
    assert Settings().usage_location() == str(tmp_path)
    monkeypatch.setenv("DISTILGPT2_BATCH_STORE", "postgresql://user:secret@host/name")
    assert Settings().usage_location() == "postgresql://user:secret@host/name"
    monkeypatch.setenv("DISTILGPT2_USAGE_STORE", "sqlite:///secret")
    assert Settings().usage_location() == "sqlite:///secret"
    assert "secret" not in repr(Settings().describe())


@pytest.mark.parametrize("name", ["KEY_TOKENS_PER_DAY", "KEY_TOKENS_PER_MONTH"])
def test_a_default_budget_is_a_number_of_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DISTILGPT2_{name}", "100000")
    limits = Settings().caller_limits()
    assert 100_000 in (limits.tokens_per_day, limits.tokens_per_month)
    monkeypatch.setenv(f"DISTILGPT2_{name}", "0")
    with pytest.raises(SettingsError, match="greater than or equal to 1"):
        Settings()
