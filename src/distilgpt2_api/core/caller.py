"""On whose behalf a request comes."""

from __future__ import annotations

from dataclasses import dataclass

LOWEST_PRIORITY = -(2**31)
"""The most urgent that there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """What one caller may take; None: no limit of its own."""

    max_requests: int | None = None
    """In flight at once, waiting and running: one for each prompt."""
    tokens_per_s: float | None = None
    """Rate at which its token bucket fills, for prompt and completion tokens."""
    burst_tokens: int | None = None
    """What the bucket holds; None: a minute's worth."""
    min_priority: int | None = None
    """The lowest priority that its requests may have. None: 0, the default, so that they can only stand back."""


NO_LIMITS = CallerLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose share of the service a request takes: an API key's, or where there are no keys an address's."""

    name: str
    """Unique among those who call; requests of one name share their limits and their place in the line."""
    limits: CallerLimits = NO_LIMITS
    is_key: bool = False
    """Whether `name` is an API key's, fit for logs; an address is not."""
    is_batch: bool = False
    """Whether this is batch work of theirs: nobody waits for it now, so it has what others leave, by no limit, without
    a deadline and outside of the queue that admission bounds."""


ANONYMOUS = Caller(name="")
"""Who calls in-process, where nobody is to be told apart."""
