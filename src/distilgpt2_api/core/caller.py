"""The caller of a request, and its limits."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

LOWEST_PRIORITY = -(2**31)
"""The most urgent priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """Limits of one caller. None means no limit of its own."""

    max_requests: int | None = None
    """Requests in flight at once, waiting and running. Each prompt is one."""
    tokens_per_s: float | None = None
    """Fill rate of its token bucket, for prompt and completion tokens."""
    burst_tokens: int | None = None
    """Capacity of the bucket. None: what fills in a minute."""
    tokens_per_day: int | None = None
    """Its budget of prompt and completion tokens for a day, in UTC. For keys only, as `tokens_per_month`."""
    tokens_per_month: int | None = None
    min_priority: int | None = None
    """The lowest priority that its requests may have. None: 0, the default, so that they can only be less urgent."""


NO_LIMITS = CallerLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller that a request is charged to: an API key or, without keys, a network address."""

    name: str
    """Unique. Requests of one name share limits and a fair share of the engine."""
    limits: CallerLimits = NO_LIMITS
    is_key: bool = False
    """Whether `name` is an API key's name, which may be logged. An address may not."""
    is_batch: bool = False
    """Whether this is the caller's batch work. It gets what other work leaves, without limits, without a deadline and
    without counting towards the bounds of the queue."""


ANONYMOUS = Caller(name="")
"""The caller of requests inside the process, where callers are not distinguished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    name: str
    """Identifies the key in logs and when it is revoked."""
    digest: bytes = field(repr=False)
    """`digest_of` the key."""
    limits: CallerLimits = NO_LIMITS
    """For a limit of None, the setting's default applies."""
    created: datetime | None = None
    """With an offset from UTC, as `expires`. None: not known."""
    expires: datetime | None = None
    """The key is not valid from then on. None: it never expires."""

    def is_expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


def digest_of(key: bytes) -> bytes:
    """SHA-256 of the key.

    A slow password hash would protect keys that can be guessed. Ours are random, and 2**128 guesses take too long with
    any hash; a slow one would only let strangers keep the service busy.
    """
    return hashlib.sha256(key).digest()
