"""An API key as a service knows it: never the key itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from distilgpt2_api.core.caller import NO_LIMITS, CallerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    name: str
    """Whose it is, or what it is for: in logs, and to revoke it by."""
    digest: bytes = field(repr=False)
    """`digest_of` the key."""
    limits: CallerLimits = NO_LIMITS
    """None in it: what every caller gets."""


def digest_of(key: bytes) -> bytes:
    """SHA-256, and no slow password hash.

    Slow hashes make words that people think of dear to guess. Ours are random, and 2**128 guesses are too many at any
    speed; a slow hash would only give strangers a way to keep the service busy.
    """
    return hashlib.sha256(key).digest()
