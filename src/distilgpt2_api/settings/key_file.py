"""The file of API keys: TOML that holds hashes, limits and dates, and no key."""

import math
import re
import stat
import tomllib
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from distilgpt2_api.core.caller import LOWEST_PRIORITY, NO_LIMITS, ApiKey, CallerLimits
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_list import KEY_NAME, KEY_NAME_RULE, check_distinct

MAX_FILE_BYTES = 1 << 20
DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_COUNT = 1_000_000_000
MAX_BUDGET = 1_000_000_000_000
YEARS = range(2000, 9000)
"""The years that a date may have: outside, a conversion to UTC could overflow."""


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """The file's keys, in order. Raises SettingsError: one line that names the file and the entry."""
    return parse_keys(read_text(path), path)


def is_open_to_others(path: Path) -> bool:
    """Whether every user of the machine may read or write the file."""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def read_text(path: Path) -> str:
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


def parse_keys(text: str, path: Path) -> tuple[ApiKey, ...]:
    try:
        return _keys_of(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the file of API keys {path} is not TOML: {error}") from None
    except ValueError as error:
        raise SettingsError(f"the file of API keys {path}: {error}") from None


def _keys_of(content: dict[str, Any]) -> tuple[ApiKey, ...]:
    entries = content.get("keys", {})
    if content.keys() - {"keys"} or not isinstance(entries, dict):
        raise ValueError("the file must have only tables [keys.NAME], one for each key")
    return check_distinct([_parse_entry(name, entry) for name, entry in entries.items()])


def _parse_entry(name: str, entry: object) -> ApiKey:
    if not KEY_NAME.fullmatch(name):
        raise ValueError(f"{name[:100]!r} can't be a key's name: {KEY_NAME_RULE}")
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: a key must be a table [keys.NAME]")  # noqa: TRY004 - `parse_keys` reports it
    if unknown := entry.keys() - {"sha256", "created", "expires", *asdict(NO_LIMITS)}:
        raise ValueError(f"{name}: unknown option {min(unknown)[:100]!r}")
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        # The value is not shown: it may be the key itself, by mistake.
        raise ValueError(f"{name}: sha256 must be 64 hexadecimal digits in lower case")
    return ApiKey(
        name=name,
        digest=bytes.fromhex(digest),
        limits=CallerLimits(
            max_requests=_whole(name, entry, "max_requests", 1, MAX_COUNT),
            tokens_per_s=_rate(name, entry),
            burst_tokens=_whole(name, entry, "burst_tokens", 1, MAX_COUNT),
            tokens_per_day=_whole(name, entry, "tokens_per_day", 1, MAX_BUDGET),
            tokens_per_month=_whole(name, entry, "tokens_per_month", 1, MAX_BUDGET),
            min_priority=_whole(name, entry, "min_priority", LOWEST_PRIORITY, 0),
        ),
        created=_moment(name, entry, "created"),
        expires=_moment(name, entry, "expires"),
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


def _moment(name: str, entry: dict[str, Any], field: str) -> datetime | None:
    value = entry.get(field)
    if value is None:
        return None
    moment = start_of(value)
    if moment is None:
        raise ValueError(
            f"{name}: {field} must be a date, such as 2027-01-31, or a time with its offset, such as "
            "2027-01-31T12:00:00Z; neither has quotes"
        )
    return moment


def start_of(value: object) -> datetime | None:
    """The first moment of a date, in UTC; a time with an offset as it is. None for anything else."""
    if not isinstance(value, date) or value.year not in YEARS:
        return None
    if isinstance(value, datetime):  # which is a date, too
        return None if value.tzinfo is None else value
    return datetime.combine(value, time(), UTC)
