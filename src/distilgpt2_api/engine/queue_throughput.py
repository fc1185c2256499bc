"""Measures the throughput of the queue, for `Retry-After`."""

import math
from collections.abc import Callable

GUESSED_TOKENS_PER_S = 1000.0
"""Used before the first measurement: the rate of a small machine with two cores."""
MEMORY_S = 30.0
"""After this time, a measurement's weight is 1/e."""


class QueueThroughput:
    """Tokens that left the queue over the time during which it was not empty; both decay exponentially."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._busy_since_s: float | None = None
        """Start of the time not yet counted, during which the queue was not empty; None while it is empty."""

    def on_enqueue(self) -> None:
        """A request joined the queue."""
        if self._busy_since_s is None:
            self._busy_since_s = self._clock()

    def on_leave(self, num_waiting: int) -> None:
        """A request left the queue without being served; `num_waiting` others wait."""
        if not num_waiting:
            self._busy_since_s = None

    def on_start(self, num_tokens: int, num_waiting: int) -> None:
        """A request for `num_tokens` left the queue because it was served; `num_waiting` others wait."""
        now_s = self._clock()
        if self._busy_since_s is not None:
            seconds = now_s - self._busy_since_s
            fade = math.exp(-seconds / MEMORY_S)
            self._tokens *= fade
            self._seconds = self._seconds * fade + seconds
        self._tokens += num_tokens
        self._busy_since_s = now_s if num_waiting else None

    def seconds_for(self, num_tokens: int) -> float:
        """Expected time until a queue of `num_tokens` is served."""
        if not self._tokens or not self._seconds:
            return num_tokens / GUESSED_TOKENS_PER_S
        return num_tokens * self._seconds / self._tokens
