"""A rate of tokens that allows bursts."""

from __future__ import annotations

BURST_S = 60.0
"""What a bucket holds unless told otherwise: so many seconds of its rate."""


class TokenBucket:
    """Fills at `tokens_per_s`, up to `burst_tokens`; times are in seconds, on any clock that only goes forward."""

    def __init__(self, tokens_per_s: float, burst_tokens: int | None, *, now_s: float) -> None:
        self._rate = tokens_per_s
        self._burst = float(max(1, tokens_per_s * BURST_S if burst_tokens is None else burst_tokens))
        self._level = self._burst
        self._filled_s = now_s

    def wait_for(self, num_tokens: int, now_s: float) -> float:
        """Seconds until it has so many; 0 if it has. One of more than it can hold waits until it is full."""
        self._fill(now_s)
        return max(0.0, (min(float(num_tokens), self._burst) - self._level) / self._rate)

    def take(self, num_tokens: int, now_s: float) -> None:
        """Take tokens, also more than there are: the next one waits for longer. Negative: give back."""
        self._fill(now_s)
        self._level = min(self._burst, self._level - num_tokens)

    def seconds_until_full(self, now_s: float) -> float:
        self._fill(now_s)
        return (self._burst - self._level) / self._rate

    def _fill(self, now_s: float) -> None:
        self._level = min(self._burst, self._level + (now_s - self._filled_s) * self._rate)
        self._filled_s = now_s
