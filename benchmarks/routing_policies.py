"""Routing policies: each chooses a node by the nodes' numbers of requests and the prompt's shared beginning.

Sources: Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12 (2001); Karger et al.,
"Consistent hashing and random trees", STOC 1997; Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded
loads", SODA 2018.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random

Policy = Callable[[Sequence[int], int | None], int]
"""Maps the number of waiting and running requests of each node, and the prompt's beginning, to the node's index."""

POINTS_PER_NODE = 64
"""Points of each node on the ring: more points make the nodes' arcs more even."""
LOAD_BOUND = 1.25
"""A beginning goes to the next node if its node has more than this times the average number of requests."""


def make_policies(num_nodes: int, seed: int) -> dict[str, Policy]:
    """Policies by name; each has its own random generator."""
    return {
        "random": RandomPolicy(Random(seed)),
        "two choices": TwoChoices(Random(seed)),
        "least": least,
        "affinity": PrefixAffinity(num_nodes, Random(seed), bound=math.inf),
        "affinity, bounded": PrefixAffinity(num_nodes, Random(seed), bound=LOAD_BOUND),
    }


class RandomPolicy:
    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG002 - as `Policy` has it
        return self._rng.randrange(len(loads))


class TwoChoices:
    """The less loaded of two random nodes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG002 - as `Policy` has it
        first, second = self._rng.randrange(len(loads)), self._rng.randrange(len(loads))
        return min(first, second, key=loads.__getitem__)


def least(loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG001 - as `Policy` has it
    """The least loaded of all nodes, with exact and instant knowledge: a bound that real routers don't reach."""
    return loads.index(min(loads))


class PrefixAffinity:
    """Consistent hashing: a beginning's node is the next one on a ring of hashes that is below its bound.

    Prompts without a shared beginning go to the less loaded of two random nodes.
    """

    def __init__(self, num_nodes: int, rng: Random, *, bound: float) -> None:
        points = [
            (_hash(f"node {node} {point}"), node) for node in range(num_nodes) for point in range(POINTS_PER_NODE)
        ]
        self._points = sorted(points)
        self._bound = bound
        self._two_choices = TwoChoices(rng)

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:
        if prefix is None:
            return self._two_choices(loads, prefix)
        # If the mean includes the new request, some node is always below the bound.
        most = self._bound * (sum(loads) + 1) / len(loads)
        most = most if math.isinf(most) else math.ceil(most)
        start = bisect(self._points, (_hash(f"prefix {prefix}"), 0))
        for offset in range(len(self._points)):
            _, node = self._points[(start + offset) % len(self._points)]
            if loads[node] < most:
                return node
        raise AssertionError("the mean is below the bound")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
