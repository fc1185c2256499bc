"""An API key as the service stores it: its digest, never the key itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from distilgpt2_api.core.caller import NO_LIMITS, CallerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    name: str
    """Identifies the key in logs and when it is revoked."""
    digest: bytes = field(repr=False)
    """`digest_of` the key."""
    limits: CallerLimits = NO_LIMITS
    """For a limit of None, the setting's default applies."""


def digest_of(key: bytes) -> bytes:
    """SHA-256 of the key.

    A slow password hash would protect keys that can be guessed. Ours are random, and 2**128 guesses take too long with
    any hash; a slow one would only let strangers keep the service busy.
    """
    return hashlib.sha256(key).digest()
