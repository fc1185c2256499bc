"""A load as numbers: how many clients or how often, which prompts, how much is drawn; and what was seen under it.

The standard library alone, for peers' own environments import it as well: the same numbers give all of them the same
prompts and the same arrivals.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Closed loop: `num_clients` send their next request when the last has ended. Open loop, with a `rate` in requests
    per second: requests arrive by chance, whether others have ended or not, and at most `num_clients` run at once.
    """

    num_clients: int
    num_requests: int
    """All clients' together."""
    rate: float | None = None
    min_prompt_tokens: int = 32
    max_prompt_tokens: int = 32
    """Lengths between the two are drawn evenly by their logarithm: many short prompts, few long ones."""
    num_new_tokens: int = 128
    top_k: int = 50
    vocab_size: int = 50256
    """Prompts are drawn from so many token ids."""
    seed: int = 0

    def prompts(self) -> list[list[int]]:
        chance = random.Random(self.seed)
        return [
            [chance.randrange(self.vocab_size) for _ in range(self._draw_length(chance))]
            for _ in range(self.num_requests)
        ]

    def arrivals_s(self) -> list[float]:
        """Seconds from the beginning to each request: a Poisson process, so the gaps are exponential."""
        assert self.rate is not None
        chance = random.Random(self.seed + 1)
        arrivals, now_s = [], 0.0
        for _ in range(self.num_requests):
            now_s += chance.expovariate(self.rate)
            arrivals.append(now_s)
        return arrivals

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Workload:
        return cls(**json.loads(line))

    def _draw_length(self, chance: random.Random) -> int:
        low, high = math.log(self.min_prompt_tokens), math.log(self.max_prompt_tokens)
        return round(math.exp(chance.uniform(low, high)))


@dataclass(slots=True)
class Measurements:
    """Mutable, owned by one load: what all of its clients saw."""

    num_tokens: int = 0
    num_requests: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    """To its first piece of text: from a request's sending, or in an open loop from its arrival."""
    itls_s: list[float] = field(default_factory=list)
    """Between pieces of one request's text, those that come in one read being one."""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the client, where it is a process of its own."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Measurements:
        return cls(**json.loads(line))


class StreamTimes:
    """Owns the times of one request's pieces."""

    def __init__(self, measurements: Measurements, since_s: float) -> None:
        self._measurements = measurements
        self._since_s = since_s
        self._is_first = True

    def mark(self, now_s: float) -> None:
        gaps_s = self._measurements.ttfts_s if self._is_first else self._measurements.itls_s
        gaps_s.append(now_s - self._since_s)
        self._since_s, self._is_first = now_s, False


def wait_for(due_s: float) -> None:
    """Until `time.perf_counter` says so; returns at once if it does already."""
    if (left_s := due_s - time.perf_counter()) > 0:
        time.sleep(left_s)


def deal(num_requests: int, num_clients: int) -> Iterator[range]:
    """Places of each client's requests, as even as can be: client 0 gets the first, the next client the next."""
    return (range(client, num_requests, num_clients) for client in range(num_clients))
