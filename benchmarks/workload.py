"""A load (clients or rate, prompts, lengths), and its measurements.

It uses only the standard library, because the peers' environments import it as well: the same values give all peers the
same prompts and arrivals.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Closed loop: `num_clients` send their next request when the last has ended. Open loop, with a `rate` in requests
    per second: requests arrive at random, independent of other requests, and at most `num_clients` run at once.
    """

    num_clients: int
    num_requests: int
    """Requests of all clients together."""
    rate: float | None = None
    min_prompt_tokens: int = 32
    max_prompt_tokens: int = 32
    """The logarithm of the length is uniform between the two: many short prompts, few long ones."""
    num_new_tokens: int = 128
    top_k: int = 50
    vocab_size: int = 50256
    """Number of token ids from which prompts are drawn."""
    seed: int = 0

    @classmethod
    def closed_loop(
        cls, num_clients: int, *, num_each: int, num_prompt_tokens: int, num_new_tokens: int, top_k: int = 50
    ) -> Workload:
        """`num_each` requests of each client, whose prompts have one length."""
        return cls(
            num_clients=num_clients,
            num_requests=num_clients * num_each,
            min_prompt_tokens=num_prompt_tokens,
            max_prompt_tokens=num_prompt_tokens,
            num_new_tokens=num_new_tokens,
            top_k=top_k,
        )

    def prompts(self) -> list[list[int]]:
        rng = random.Random(self.seed)
        return [
            [rng.randrange(self.vocab_size) for _ in range(self._draw_length(rng))] for _ in range(self.num_requests)
        ]

    def arrivals_s(self) -> list[float]:
        """Seconds from the start to each request: a Poisson process with exponential gaps."""
        assert self.rate is not None
        rng = random.Random(self.seed + 1)
        arrivals, now_s = [], 0.0
        for _ in range(self.num_requests):
            now_s += rng.expovariate(self.rate)
            arrivals.append(now_s)
        return arrivals

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Workload:
        return cls(**json.loads(line))

    def _draw_length(self, rng: random.Random) -> int:
        low, high = math.log(self.min_prompt_tokens), math.log(self.max_prompt_tokens)
        return round(math.exp(rng.uniform(low, high)))


@dataclass(slots=True)
class Measurements:
    """Measurements of all clients of a load. Mutable, owned by one load."""

    num_tokens: int = 0
    num_requests: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    """Time to the first piece of text: from sending the request, or in an open loop from its arrival."""
    itls_s: list[float] = field(default_factory=list)
    """Time between pieces of one request's text; pieces in one read count as one."""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the client, if it is a separate process."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Measurements:
        return cls(**json.loads(line))


def client_command(port: int, workload: Workload, *options: str) -> list[str]:
    """The command of `load_client.py`, a separate process: it sends the load, and prints the measurements."""
    load = [str(port), f"--workload={workload.to_json()}", *options]
    return [sys.executable, "-m", "benchmarks.load_client", *load]


def run_client(port: int, workload: Workload, *options: str) -> Measurements:
    """Measurements of a load client that has ended. Raises subprocess.CalledProcessError if it fails."""
    command = client_command(port, workload, *options)
    return Measurements.from_json(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


class StreamTimes:
    """Times of one request's pieces of text."""

    def __init__(self, measurements: Measurements, since_s: float) -> None:
        self._measurements = measurements
        self._since_s = since_s
        self._is_first = True

    def mark(self, now_s: float) -> None:
        gaps_s = self._measurements.ttfts_s if self._is_first else self._measurements.itls_s
        gaps_s.append(now_s - self._since_s)
        self._since_s, self._is_first = now_s, False


def wait_for(due_s: float) -> None:
    """Wait until `time.perf_counter` reaches `due_s`."""
    if (left_s := due_s - time.perf_counter()) > 0:
        time.sleep(left_s)


def deal(num_requests: int, num_clients: int) -> Iterator[range]:
    """Indices of each client's requests, evenly distributed: client 0 gets the first ones, client 1 the next."""
    return (range(client, num_requests, num_clients) for client in range(num_clients))
