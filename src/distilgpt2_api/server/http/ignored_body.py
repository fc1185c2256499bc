"""Bodies that nobody reads, because their request was refused by its head."""

from __future__ import annotations

from collections.abc import Iterable

MAX_IGNORED_BODY_BYTES = 1 << 16
"""A longer body, or one of unknown length, is not worth waiting for to keep the connection."""


def is_long_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the body that these headers (names in lower case) announce ends the connection where it is not read."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            return not value.isdigit() or len(value) > 19 or int(value) > MAX_IGNORED_BODY_BYTES
    return False
