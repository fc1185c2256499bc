"""The file of API keys: TOML that holds hashes and limits, and no key."""

from __future__ import annotations

import math
import os
import re
import secrets
import stat
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distilgpt2_api.core.api_key import ApiKey, digest_of
from distilgpt2_api.core.caller import LOWEST_PRIORITY, NO_LIMITS, CallerLimits
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_list import KEY_NAME, KEY_NAME_RULE, check_distinct

MAX_FILE_BYTES = 1 << 20
KEY_PREFIX = "dg2-"
"""By which people and scanners for leaked secrets know whose key it is."""
DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_COUNT = 1_000_000_000
TABLE = re.compile(r"^\[keys\.(?:([A-Za-z0-9_-]+)|\"([^\"]+)\")\]\s*(?:#.*)?$")
ANY_TABLE = re.compile(r"^\s*\[")


def make_key() -> str:
    """256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """Its keys, in order. Raises SettingsError, in one line that names the file and the entry."""
    return _parse(_read_text(path), path)


def is_open_to_others(path: Path) -> bool:
    """Whether every user of the machine may read it or write it."""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def describe_key(name: str, key: str, limits: CallerLimits) -> str:
    """The file's entry for a new key. Raises SettingsError."""
    if not KEY_NAME.fullmatch(name):
        raise SettingsError(f"{name[:100]!r} can't be a key's name: {KEY_NAME_RULE}")
    lines = [f'[keys."{name}"]' if set(name) & set(".@") else f"[keys.{name}]"]
    lines.append(f'sha256 = "{digest_of(key.encode()).hex()}"')
    lines += [f"{limit} = {value}" for limit, value in asdict(limits).items() if value is not None]
    return "\n".join([*lines, ""])


def add_to_key_file(path: Path, entry: str) -> None:
    """Append what `describe_key` made; a missing file is made. Raises SettingsError, and then changes nothing."""
    text = _read_text(path) if path.exists() else ""
    separator = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    text += separator + entry
    _parse(text, path)
    _write_whole(path, text)


def remove_from_key_file(path: Path, name: str) -> None:
    """What stands between its heading and the next one goes; the rest stays as it was written.

    Raises SettingsError, and then changes nothing.
    """
    text = _read_text(path)
    before = _parse(text, path)
    if name not in {key.name for key in before}:
        raise SettingsError(f"{path} has no key {name[:100]!r}")
    kept, is_inside = [], False
    for line in text.splitlines(keepends=True):
        if ANY_TABLE.match(line):
            heading = TABLE.match(line.rstrip())
            is_inside = heading is not None and name in heading.groups()
        if not is_inside:
            kept.append(line)
    changed = "".join(kept)
    # TOML has many spellings; where this one was not ours, nothing is changed.
    if _parse(changed, path) != tuple(key for key in before if key.name != name):
        raise SettingsError(f"{path} writes the key {name!r} in a form of its own: remove it by hand")
    _write_whole(path, changed)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise SettingsError(f"the file of API keys {path} is missing, or not a file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"can't read the file of API keys {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"the file of API keys {path} has more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"the file of API keys {path} is not UTF-8") from None


def _parse(text: str, path: Path) -> tuple[ApiKey, ...]:
    try:
        return _keys_of(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the file of API keys {path} is not TOML: {error}") from None
    except ValueError as error:
        raise SettingsError(f"the file of API keys {path}: {error}") from None


def _keys_of(content: dict[str, Any]) -> tuple[ApiKey, ...]:
    entries = content.get("keys", {})
    if content.keys() - {"keys"} or not isinstance(entries, dict):
        raise ValueError("every key is a table [keys.NAME], and there is nothing else")
    return check_distinct([_parse_entry(name, entry) for name, entry in entries.items()])


def _parse_entry(name: str, entry: object) -> ApiKey:
    if not KEY_NAME.fullmatch(name):
        raise ValueError(f"{name[:100]!r} can't be a key's name: {KEY_NAME_RULE}")
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: every key is a table [keys.NAME]")  # noqa: TRY004 - told by `_parse`
    if unknown := entry.keys() - {"sha256", *asdict(NO_LIMITS)}:
        raise ValueError(f"{name}: unknown: {min(unknown)[:100]!r}")
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        # The value is not shown: somebody may have written the key itself there.
        raise ValueError(f"{name}: sha256 must be 64 hexadecimal digits in lower case")
    return ApiKey(
        name=name,
        digest=bytes.fromhex(digest),
        limits=CallerLimits(
            max_requests=_whole(name, entry, "max_requests", 1, MAX_COUNT),
            tokens_per_s=_rate(name, entry),
            burst_tokens=_whole(name, entry, "burst_tokens", 1, MAX_COUNT),
            min_priority=_whole(name, entry, "min_priority", LOWEST_PRIORITY, 0),
        ),
    )


def _whole(name: str, entry: dict[str, Any], limit: str, smallest: int, largest: int) -> int | None:
    value = entry.get(limit)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
        raise ValueError(f"{name}: {limit} must be a whole number from {smallest} to {largest}")
    return value


def _rate(name: str, entry: dict[str, Any]) -> float | None:
    value = entry.get("tokens_per_s")
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= MAX_COUNT:
        raise ValueError(f"{name}: tokens_per_s must be a number above 0, at most {MAX_COUNT}")
    return float(value)


def _write_whole(path: Path, text: str) -> None:
    """All or nothing: a running service never reads half of it. For nobody else to read, or to those who might before.

    Raises SettingsError.
    """
    temporary = ""
    try:
        target = path.resolve()
        mode = target.stat().st_mode & 0o660 if target.exists() else 0o600
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise SettingsError(f"can't write the file of API keys {path}: {error.strerror}") from None
