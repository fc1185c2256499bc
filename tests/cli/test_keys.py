"""`distilgpt2-api keys`: a key is shown once, the file holds its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.caller import CallerLimits, digest_of
from distilgpt2_api.settings.key_file import read_key_file


def test_a_key_goes_to_stdout_and_its_hash_to_the_file(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    options = ["--max-requests", "8", "--tokens-per-s", "500", "--burst-tokens", "20000", "--min-priority", "-2"]
    result = invoke("keys", "add", "alice", "--file", str(file), *options)
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    [entry] = read_key_file(file)
    assert entry.digest == digest_of(key.encode())
    assert entry.limits == CallerLimits(max_requests=8, tokens_per_s=500.0, burst_tokens=20000, min_priority=-2)
    assert key not in file.read_text()


def test_keys_are_listed_and_removed_in_the_file_of_the_setting(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILGPT2_API_KEYS_FILE", str(tmp_path / "keys.toml"))
    for name in ("alice", "bob"):
        assert invoke("keys", "add", name).exit_code == 0
    assert invoke("keys", "list").stdout == "alice\nbob\n"
    assert invoke("keys", "remove", "alice").exit_code == 0
    assert invoke("keys", "list").stdout == "bob\n"


def test_without_a_file_the_entry_is_shown_beside_the_key(invoke: Any, tmp_path: Path) -> None:
    result = invoke("keys", "add", "alice")
    file = tmp_path / "keys.toml"
    file.write_text(result.stderr.partition("\n(")[0])
    [entry] = read_key_file(file)
    assert (entry.name, entry.digest) == ("alice", digest_of(result.stdout.strip().encode()))


def test_a_rate_that_is_not_a_number_creates_no_key(invoke: Any) -> None:
    result = invoke("keys", "add", "alice", "--tokens-per-s", "nan")
    assert result.exit_code == 2
    assert "nan is not a finite number" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["list"], "error: no key file: give --file, or set api_keys_file"),
        (["remove", "alice"], "error: no key file"),
        (["list", "--file", "nowhere"], "error: the file of API keys nowhere is missing, or not a file"),
        (["remove", "carol", "--file", "FILE"], "error: FILE has no key 'carol'"),
        (["add", "alice", "--file", "FILE"], "error: the file of API keys FILE is not TOML: "),
        (["add", "a b"], "error: 'a b' can't be a key's name"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(arguments: list[str], line: str, invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    assert invoke("keys", "add", "alice", "--file", str(file)).exit_code == 0
    before = file.read_text()
    result = invoke("keys", *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert result.exit_code == 1
    assert result.stderr.startswith(line.replace("FILE", str(file)))
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert file.read_text() == before
