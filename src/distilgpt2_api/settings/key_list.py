"""Parses API keys from a setting: `name:key`, or a key alone. No error message shows a key."""

import re

from distilgpt2_api.core.caller import ApiKey, digest_of
from distilgpt2_api.settings.text_lists import parse_texts

MIN_KEY_LENGTH = 16
MAX_KEY_LENGTH = 256
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Safe in log lines; needs no quotes in TOML unless it contains a dot or an at sign."""
KEY_NAME_RULE = "a name must have 1 to 64 letters, digits or ._@-, and start with a letter or digit"
METRICS_KEY_NAME = "metrics"


def parse_key_list(value: object) -> tuple[ApiKey, ...]:
    """Raises ValueError."""
    entries = parse_texts(value, "keys must be strings, `name:key` or `key`")
    if isinstance(value, str) and not entries:
        raise ValueError("the list contains no key")  # A typo must not disable authentication.
    return check_distinct([_parse_entry(entry, number) for number, entry in enumerate(entries, start=1)])


def parse_metrics_key(value: object) -> ApiKey | None:
    """Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("a key must be a string")  # noqa: TRY004 - pydantic takes ValueError
    return _key(METRICS_KEY_NAME, value.strip(), "the key")


def check_distinct(keys: list[ApiKey]) -> tuple[ApiKey, ...]:
    """Raises ValueError for a repeated name, and for a key under two names (revoking one would leave the other)."""
    names: set[str] = set()
    owners: dict[bytes, str] = {}
    for key in keys:
        if key.name in names:
            raise ValueError(f"two keys have the name {key.name}")
        if key.digest in owners:
            raise ValueError(f"{owners[key.digest]} and {key.name} are the same key")
        names.add(key.name)
        owners[key.digest] = key.name
    return tuple(keys)


def _parse_entry(entry: str, number: int) -> ApiKey:
    name, colon, key = entry.rpartition(":")
    if not colon:
        return _key(f"key-{number}", key, f"key number {number}")
    if not KEY_NAME.fullmatch(name):
        # The name isn't shown: it may be half of a key that contains a colon.
        raise ValueError(f"key number {number} has an invalid name: {KEY_NAME_RULE}")
    return _key(name, key, f"the key of {name}")


def _key(name: str, key: str, what: str) -> ApiKey:
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        raise ValueError(
            f"{what} has {len(key)} characters, must have {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} "
            "(`distilgpt2-api keys add` creates one)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{what} must consist of ASCII characters without spaces")
    return ApiKey(name=name, digest=digest_of(key.encode()))
