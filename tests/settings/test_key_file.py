"""The file of API keys: hashes and limits, written whole, refused in one line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from distilgpt2_api.core.caller import CallerLimits, digest_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_file import read_key_file
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, make_key, remove_from_key_file

DIGEST = digest_of(b"dg2-0123456789abcdef").hex()
OTHER = digest_of(b"dg2-another-key-0123").hex()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_long_random_and_recognisable() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("dg2-") and len(key) == 47 for key in keys)


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    limits = CallerLimits(max_requests=8, tokens_per_s=500.0, burst_tokens=20_000, min_priority=-10)
    slow, fast = CallerLimits(tokens_per_s=0.5), CallerLimits(tokens_per_s=1_234_567.5)
    for name, limit in (("alice", limits), ("b.ob@site", CallerLimits()), ("slow", slow), ("fast", fast)):
        key = make_key()
        add_to_key_file(path, describe_key(name, key, limit))
        added = read_key_file(path)[-1]
        assert (added.name, added.digest, added.limits) == (name, digest_of(key.encode()), limit)
        assert key not in path.read_text()
    assert mode_of(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_removed_is_gone_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    first, last = f'# ours\n[keys.a]\nsha256 = "{DIGEST}"\n', f'[keys.c]  # last\nsha256 = "{"0" * 64}"\n'
    for heading in ("[keys.b]", '[keys."b"]  # the second'):
        path.write_text(f'{first}\n{heading}\nsha256 = "{OTHER}"\nmax_requests = 1\n\n{last}')
        remove_from_key_file(path, "b")
        assert path.read_text() == f"{first}\n{last}"


def test_permissions_of_the_group_stay_and_those_of_others_go(tmp_path: Path) -> None:
    """A service of another user of the group reads it after a change as before."""
    path = tmp_path / "keys.toml"
    path.write_text("")
    path.chmod(0o644)
    add_to_key_file(path, describe_key("a", make_key(), CallerLimits()))
    assert mode_of(path) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.toml", tmp_path / "link.toml"
    target.write_text("")
    link.symlink_to(target)
    add_to_key_file(link, describe_key("a", make_key(), CallerLimits()))
    assert link.is_symlink()
    assert [key.name for key in read_key_file(target)] == ["a"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f'[keys]\na = {{ sha256 = "{DIGEST}" }}\n# b\nb.sha256 = "{OTHER}"\n', f'[keys]\n# b\nb.sha256 = "{OTHER}"\n'),
        (
            f'keys.a.sha256 = "{DIGEST}"\nkeys.b.sha256="{OTHER}"\nkeys.a.max_requests = 1\n',
            f'keys.b.sha256="{OTHER}"\n',
        ),
        (
            f'[keys.b]\r\nsha256 = "{OTHER}"\r\n[keys]\r\na.sha256 = "{DIGEST}"',
            f'[keys.b]\r\nsha256 = "{OTHER}"\r\n',
        ),
    ],
)
def test_an_entry_is_removed_in_every_form_that_toml_has(text: str, left: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(text.encode())
    remove_from_key_file(path, "a")
    assert path.read_bytes() == left.encode()


def test_a_removal_that_would_change_other_keys_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.toml"
    text = f'[keys.a]\nsha256 = "{DIGEST}"\n[keys.b]\nsha256 = "{OTHER}"\n'
    path.write_text(text)
    monkeypatch.setattr("tomlkit.dumps", lambda _document: "")
    with pytest.raises(SettingsError, match="remove it by hand"):
        remove_from_key_file(path, "a")
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "a" * 65, 'a"b', "a]\n[keys.b", "a,b", "a:b"])
def test_a_name_fits_into_a_log_line(name: str) -> None:
    with pytest.raises(SettingsError, match="can't be a key's name"):
        describe_key(name, make_key(), CallerLimits())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.a", "is not TOML: "),
        (f'[keys.a]\nsha256 = "{DIGEST}"\n[keys.a]\n', "is not TOML: "),
        ("port = 1", "the file must have only tables [keys.NAME]"),
        ("keys = 1", "the file must have only tables [keys.NAME]"),
        ('[keys]\na = "dg2-secret-0123456789"', "a: a key must be a table [keys.NAME]"),
        ("[keys.a]", "a: sha256 must be 64 hexadecimal digits"),
        ('[keys.a]\nsha256 = "dg2-secret-0123456789"', "a: sha256 must be 64 hexadecimal digits"),
        (f'[keys.a]\nsha256 = "{DIGEST.upper()}"', "a: sha256 must be 64 hexadecimal digits"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nmax_request = 1', "a: unknown option 'max_request'"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nexpires = "2999-01-31"', "a: expires must be a date, such as "),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nexpires = 2999-01-31T12:00:00', "a: expires must be a date, such as "),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nexpires = 12:00:00', "a: expires must be a date, such as "),
        (f'[keys.a]\nsha256 = "{DIGEST}"\ncreated = 0001-01-01T00:00:00+23:59', "a: created must be a date, such as "),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nmax_requests = 0', "a: max_requests must be a whole number"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nmax_requests = true', "a: max_requests must be a whole number"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\nburst_tokens = 1.5', "a: burst_tokens must be a whole number"),
        (
            f'[keys.a]\nsha256 = "{DIGEST}"\nmin_priority = 1',
            "a: min_priority must be a whole number from -2147483648 to 0",
        ),
        (f'[keys.a]\nsha256 = "{DIGEST}"\ntokens_per_s = nan', "a: tokens_per_s must be a number above 0"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\ntokens_per_s = -1', "a: tokens_per_s must be a number above 0"),
        (f'[keys.a]\nsha256 = "{DIGEST}"\n[keys.b]\nsha256 = "{DIGEST}"', "a and b are the same key"),
        (f'[keys."a b"]\nsha256 = "{DIGEST}"', "'a b' can't be a key's name"),
        ("#" * (1 << 20) + "#", "has more than 1 MiB"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it_and_shows_no_key(text: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        read_key_file(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message
    assert "dg2-secret" not in message


def test_a_file_that_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is missing, or not a file"):
        read_key_file(tmp_path)
    with pytest.raises(SettingsError, match="can't write the file of API keys"):
        add_to_key_file(tmp_path / "nowhere" / "keys.toml", describe_key("a", make_key(), CallerLimits()))
