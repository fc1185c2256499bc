"""How fast the queue moves: so that `Retry-After` is a measurement and no guess."""

from __future__ import annotations

import math
from collections.abc import Callable

GUESSED_TOKENS_PER_S = 1000.0
"""Before anything was measured: a modest two-core machine."""
MEMORY_S = 30.0
"""After so long a measurement counts for a third (1/e)."""


class QueueThroughput:
    """Tokens that leave the queue, over the time in which there was one; both fade with `MEMORY_S`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._busy_since_s: float | None = None
        """From when the queue, not empty since, is not accounted for yet; None while it is empty."""

    def on_enqueue(self) -> None:
        """Somebody waits."""
        if self._busy_since_s is None:
            self._busy_since_s = self._clock()

    def on_leave(self, num_waiting: int) -> None:
        """Somebody went away unserved; `num_waiting` others wait."""
        if not num_waiting:
            self._busy_since_s = None

    def on_start(self, num_tokens: int, num_waiting: int) -> None:
        """A request for so many tokens left the queue because it was served; `num_waiting` others wait."""
        now_s = self._clock()
        if self._busy_since_s is not None:
            seconds = now_s - self._busy_since_s
            fade = math.exp(-seconds / MEMORY_S)
            self._tokens *= fade
            self._seconds = self._seconds * fade + seconds
        self._tokens += num_tokens
        self._busy_since_s = now_s if num_waiting else None

    def seconds_for(self, num_tokens: int) -> float:
        """How long a queue of so many tokens takes to be served."""
        if not self._tokens or not self._seconds:
            return num_tokens / GUESSED_TOKENS_PER_S
        return num_tokens * self._seconds / self._tokens
