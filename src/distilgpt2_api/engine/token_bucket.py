"""A token bucket: a rate limit that allows bursts."""

BURST_S = 60.0
"""Default capacity, in seconds of the rate."""


class TokenBucket:
    """Fills at `tokens_per_s` up to `burst_tokens`. Times are seconds on any monotonic clock."""

    def __init__(self, tokens_per_s: float, burst_tokens: int | None, *, now_s: float) -> None:
        self._rate = tokens_per_s
        self._burst = float(max(1, tokens_per_s * BURST_S if burst_tokens is None else burst_tokens))
        self._level = self._burst
        self._filled_s = now_s

    def wait_for(self, num_tokens: int, now_s: float) -> float:
        """Seconds until the bucket has `num_tokens`, or is full if that is more than its capacity."""
        self._fill(now_s)
        return max(0.0, (min(float(num_tokens), self._burst) - self._level) / self._rate)

    def take(self, num_tokens: int, now_s: float) -> None:
        """Take tokens, or return them if negative. The level may fall below 0; the next request then waits longer."""
        self._fill(now_s)
        self._level = min(self._burst, self._level - num_tokens)

    def seconds_until_full(self, now_s: float) -> float:
        self._fill(now_s)
        return (self._burst - self._level) / self._rate

    def _fill(self, now_s: float) -> None:
        self._level = min(self._burst, self._level + (now_s - self._filled_s) * self._rate)
        self._filled_s = now_s
