"""`distilgpt2-api keys`: a key is shown once, the file holds its hash, limits and dates."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.caller import CallerLimits, digest_of
from distilgpt2_api.core.usage import DailyUsage, Usage
from distilgpt2_api.settings.key_file import read_key_file
from distilgpt2_api.usage.databases import usage_store_at

DIGEST = digest_of(b"dg2-0123456789abcdef").hex()


def test_a_key_goes_to_stdout_and_its_hash_to_the_file(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    options = ["--max-requests", "8", "--tokens-per-s", "500", "--burst-tokens", "20000", "--min-priority", "-2"]
    options += ["--tokens-per-day", "100000", "--tokens-per-month", "2000000"]
    result = invoke("keys", "add", "alice", "--file", str(file), *options)
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    [entry] = read_key_file(file)
    assert entry.digest == digest_of(key.encode())
    assert entry.limits == CallerLimits(
        max_requests=8,
        tokens_per_s=500.0,
        burst_tokens=20000,
        tokens_per_day=100_000,
        tokens_per_month=2_000_000,
        min_priority=-2,
    )
    assert key not in file.read_text()


def test_a_saved_key_is_in_a_file_that_only_its_owner_can_read(invoke: Any, tmp_path: Path) -> None:
    file, saved = tmp_path / "keys.toml", tmp_path / "alice.key"
    result = invoke("keys", "add", "alice", "--file", str(file), "--save", str(saved))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"alice was added to {file}; the key is in {saved}\n"
    [entry] = read_key_file(file)
    assert entry.digest == digest_of(saved.read_bytes().removesuffix(b"\n"))
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_a_key_is_saved_without_a_key_file(invoke: Any, tmp_path: Path) -> None:
    saved = tmp_path / "alice.key"
    result = invoke("keys", "add", "alice", "--save", str(saved))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.endswith(f"(no key file is set: add the entry above to one; the key is in {saved})\n")
    assert digest_of(saved.read_bytes().strip()).hex() in result.stderr


@pytest.mark.reported("first hour: a command that failed left an empty file for the key")
def test_a_key_that_is_refused_leaves_no_saved_file(invoke: Any, tmp_path: Path) -> None:
    file, saved = tmp_path / "keys.toml", tmp_path / "alice.key"
    invoke("keys", "add", "alice", "--file", str(file))
    before = file.read_bytes()
    result = invoke("keys", "add", "alice", "--file", str(file), "--save", str(saved))
    assert (result.exit_code, f"{file} already has a key alice" in result.stderr) == (1, True)
    assert (file.read_bytes(), saved.exists()) == (before, False)


def test_a_saved_key_never_replaces_another_and_adds_no_entry(invoke: Any, tmp_path: Path) -> None:
    file, saved = tmp_path / "keys.toml", tmp_path / "alice.key"
    saved.write_text("the only copy\n")
    for path, text in ((saved, f"{saved} exists already"), (tmp_path / "none" / "key", "No such file or directory")):
        result = invoke("keys", "add", "alice", "--file", str(file), "--save", str(path))
        assert (result.exit_code, text in result.stderr, result.stderr.count("\n")) == (1, True, 1)
    assert (saved.read_text(), file.exists()) == ("the only copy\n", False)


def test_the_key_file_is_no_place_for_a_key(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    result = invoke("keys", "add", "alice", "--file", str(file), "--save", str(tmp_path / "." / "keys.toml"))
    assert (result.exit_code, f"{file} is the key file" in result.stderr, file.exists()) == (2, True, False)


def test_a_key_that_can_not_be_printed_is_not_added(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    command = [sys.executable, "-m", "distilgpt2_api", "keys", "add", "alice", "--file", str(file)]
    with Path("/dev/full").open("w") as full_disk:
        result = subprocess.run(command, stdout=full_disk, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: can't write the output: No space left on device\n")
    assert read_key_file(file) == ()


PAUSED_ADD = """
import sys, tempfile
from distilgpt2_api.cli import main
make = tempfile.mkstemp
def wait(*arguments, **options):
    print("replacing", flush=True)
    sys.stdin.readline()
    return make(*arguments, **options)
tempfile.mkstemp = wait
main(["keys", "add", "alice", "--file", sys.argv[1]])
"""
ANNOUNCED_ADD = """
import fcntl, sys
from distilgpt2_api.cli import main
lock = fcntl.flock
def announce(*arguments):
    print("locking", flush=True)
    lock(*arguments)
fcntl.flock = announce
main(["keys", "add", "bob", "--file", sys.argv[1]])
"""


@pytest.mark.reported("of two keys that were added at the same time, one was lost")
def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    """The second one starts after the first has read the file, and before it has replaced it."""
    file = tmp_path / "keys.toml"

    def add(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(file)]
        return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with add(PAUSED_ADD) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "replacing\n"
        with add(ANNOUNCED_ADD) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "locking\n"
            first.communicate("go on\n")
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert [key.name for key in read_key_file(file)] == ["alice", "bob"]


def test_keys_are_listed_and_removed_in_the_file_of_the_setting(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILGPT2_API_KEYS_FILE", str(tmp_path / "keys.toml"))
    for name in ("alice", "bob"):
        assert invoke("keys", "add", name).exit_code == 0
    assert listed_names(invoke) == ["alice", "bob"]
    assert invoke("keys", "remove", "alice").exit_code == 0
    assert listed_names(invoke) == ["bob"]


def listed_names(invoke: Any) -> list[str]:
    return [line.split()[0] for line in invoke("keys", "list").stdout.splitlines()[1:]]


def test_a_list_has_limits_and_dates(invoke: Any, tmp_path: Path) -> None:
    """A key of an older file has no dates. JSON has the moments, the table their days in UTC."""
    file = tmp_path / "keys.toml"
    file.write_text(
        f'[keys.old]\nsha256 = "{DIGEST}"\n\n[keys.gone]\nsha256 = "{"0" * 64}"\nexpires = 2020-02-29T23:30:00-01:00\n'
    )
    options = ["--max-requests", "8", "--tokens-per-s", "0.5", "--expires", "2999-12-31", "--file", str(file)]
    assert invoke("keys", "add", "new", *options).exit_code == 0
    day = datetime.now(UTC).date().isoformat()

    table = invoke("keys", "list", "--file", str(file)).stdout
    listed = json.loads(invoke("keys", "list", "--format", "json", "--file", str(file)).stdout)

    assert [line.split() for line in table.splitlines()] == [
        ["name", "created", "expires", "last_used", *asdict(CallerLimits())],
        ["old", "-", "never", "-", *["-"] * 6],
        ["gone", "-", "2020-03-01", "(expired)", "-", *["-"] * 6],
        ["new", day, "2999-12-31", "-", "8", "0.5", *["-"] * 4],
    ]
    assert [entry["name"] for entry in listed] == ["old", "gone", "new"]
    assert listed[1]["expires"] == "2020-02-29T23:30:00-01:00"
    assert listed[2]["expires"] == "2999-12-31T00:00:00+00:00"
    assert listed[2]["created"].startswith(day)
    assert (listed[2]["max_requests"], listed[2]["tokens_per_s"], listed[2]["burst_tokens"]) == (8, 0.5, None)


def test_a_key_expires_some_days_from_now(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    assert invoke("keys", "add", "alice", "--expires", "90d", "--file", str(file)).exit_code == 0
    [entry] = read_key_file(file)
    assert entry.created is not None
    assert entry.expires is not None
    assert entry.expires - entry.created == timedelta(days=90)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("2020-01-31", "2020-01-31 is in the past"),
        ("2999-01-31T12:00:00", "nor a time with its offset"),
        ("0d", "neither days from now"),
        ("soon", "neither days from now"),
        ("9999-12-31", "neither days from now"),
    ],
)
def test_an_unclear_or_past_end_creates_no_key(when: str, message: str, invoke: Any) -> None:
    result = invoke("keys", "add", "alice", "--expires", when)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


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
        (["list"], "error: no key file: give --file, or set DISTILGPT2_API_KEYS_FILE"),
        (["remove", "alice"], "error: no key file"),
        (["list", "--file", "nowhere"], "error: the file of API keys nowhere is missing, or not a file"),
        (["remove", "carol", "--file", "FILE"], "error: FILE has no key 'carol'"),
        (["add", "alice", "--file", "FILE"], "error: FILE already has a key alice; choose another name, or remove"),
        (["add", "a b"], "error: 'a b' can't be a key's name"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(arguments: list[str], line: str, invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    assert invoke("keys", "add", "alice", "--file", str(file)).exit_code == 0
    before = file.read_text()
    result = invoke("keys", *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert result.exit_code == 1
    assert result.stderr.startswith(line.replace(" FILE ", f" {file} "))
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert file.read_text() == before


def test_a_name_that_exists_is_refused_with_the_command_that_frees_it(invoke: Any, tmp_path: Path) -> None:
    """However the file writes its name."""
    file = tmp_path / "keys.toml"
    file.write_text(f'[keys."alice"]\nsha256 = "{DIGEST}"\n')
    result = invoke("keys", "add", "alice", "--file", str(file))
    assert result.exit_code == 1
    command = result.stderr.strip().partition("remove it first: distilgpt2-api ")[2]
    assert invoke(*command.split()).exit_code == 0
    assert invoke("keys", "add", "alice", "--file", str(file)).exit_code == 0


def test_a_name_of_the_setting_is_refused(invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service refuses a file that has a name of the setting."""
    monkeypatch.setenv("DISTILGPT2_API_KEYS", "alice:dg2-0123456789abcdef")
    monkeypatch.setenv("DISTILGPT2_API_KEYS_FILE", str(tmp_path / "keys.toml"))
    result = invoke("keys", "add", "alice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: the setting api_keys already has a key alice; choose another name\n"
    assert not (tmp_path / "keys.toml").exists()
    assert invoke("keys", "add", "bob").exit_code == 0


def test_a_key_is_not_added_beside_an_inline_table(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(before := f'keys = {{ alice = {{ sha256 = "{DIGEST}" }} }}\n')
    result = invoke("keys", "add", "bob", "--file", str(file))
    assert (result.exit_code, result.stdout, file.read_text()) == (1, "", before)
    assert result.stderr.startswith(f"error: can't add the key bob to {file}: its keys are an inline table")


def test_a_file_without_keys_is_not_an_empty_table(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.touch()
    result = invoke("keys", "list", "--file", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no keys\n")


# ---- usage


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the usage of two keys."""
    folder = tmp_path / "usage"
    monkeypatch.setenv("DISTILGPT2_USAGE_STORE", str(folder))
    rows = [
        daily("alice", date(2026, 11, 28), num_requests=1, num_prompt_tokens=10, num_completion_tokens=5),
        daily("alice", date(2026, 11, 29), num_requests=2, num_prompt_tokens=20, num_refusals=3),
        daily("bob", date(2026, 11, 29), num_requests=4),
    ]
    with usage_store_at(str(folder)).session() as session:
        session.write("process", rows)
    return folder


def daily(key: str, day: date, **counts: int) -> DailyUsage:
    last_used = datetime.combine(day, time(12), UTC)
    return DailyUsage(key=key, day=day, usage=Usage(**counts), last_used_s=last_used.timestamp())


@pytest.mark.usefixtures("used")
def test_usage_is_printed_by_key_and_by_day(invoke: Any) -> None:
    days = ["--since", "2026-11-01", "--until", "2026-11-30"]
    table = invoke("keys", "usage", *days).stdout.splitlines()
    assert [line.split() for line in table] == [
        ["key", "requests", "prompt", "tokens", "completion", "tokens", "refusals", "last", "used"],
        ["alice", "3", "30", "5", "3", "2026-11-29T12:00:00+00:00"],
        ["bob", "4", "0", "0", "0", "2026-11-29T12:00:00+00:00"],
    ]
    by_day = invoke("keys", "usage", "alice", "--by-day", *days).stdout.splitlines()
    assert [line.split()[:3] for line in by_day[1:]] == [["alice", "2026-11-28", "1"], ["alice", "2026-11-29", "2"]]


@pytest.mark.usefixtures("used")
def test_usage_is_json_for_programs(invoke: Any) -> None:
    days = ["--since", "2026-11-29", "--until", "2026-11-29"]
    [alice, bob] = json.loads(invoke("keys", "usage", "--format", "json", *days).stdout)
    assert alice == {
        "key": "alice",
        "requests": 2,
        "prompt_tokens": 20,
        "completion_tokens": 0,
        "refusals": 3,
        "last_used": "2026-11-29T12:00:00+00:00",
    }
    assert bob["requests"] == 4
    [entry] = json.loads(invoke("keys", "usage", "bob", "--by-day", "--format", "json", *days).stdout)
    assert entry["date"] == "2026-11-29"


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["carol", "--since", "2026-11-01"], "no usage of carol since 2026-11-01"),
        (["--since", "2020-02-01", "--until", "2020-02-29"], "no usage from 2020-02-01 to 2020-02-29"),
    ],
)
def test_no_usage_is_a_sentence_and_no_empty_table(arguments: list[str], line: str, invoke: Any) -> None:
    result = invoke("keys", "usage", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", line + "\n")
    assert json.loads(invoke("keys", "usage", "--format", "json", *arguments).stdout) == []


@pytest.mark.usefixtures("used")
def test_the_list_has_the_last_use(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    for name in ("alice", "carol"):
        invoke("keys", "add", name, "--file", str(file))
    alice, carol = json.loads(invoke("keys", "list", "--format", "json", "--file", str(file)).stdout)
    assert (alice["last_used"], carol["last_used"]) == ("2026-11-29T12:00:00+00:00", None)
    assert "2026-11-29" in invoke("keys", "list", "--file", str(file)).stdout


def test_a_store_that_cannot_be_read_hides_only_the_last_use(used: Path, invoke: Any, tmp_path: Path) -> None:
    (used / "usage.sqlite3").write_bytes(b"no database at all" * 100)
    file = tmp_path / "keys.toml"
    invoke("keys", "add", "alice", "--file", str(file))
    result = invoke("keys", "list", "--file", str(file))
    assert (result.exit_code, result.stdout.splitlines()[1].split()[0]) == (0, "alice")
    assert "(last uses are not known: can't use " in result.stderr


def test_without_a_store_there_is_no_usage_and_none_is_created(invoke: Any, tmp_path: Path) -> None:
    result = invoke("keys", "usage")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no usage is stored: there is no ")
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "2026-11-30", "--until", "2026-11-29"], "2026-11-29 is before --since, 2026-11-30."),
        (["--since", "yesterday"], "'yesterday' is not a day, such as 2027-01-31."),
    ],
)
def test_unclear_days_are_refused(invoke: Any, options: list[str], message: str) -> None:
    result = invoke("keys", "usage", *options)
    assert (result.exit_code, message in result.stderr) == (2, True)
