"""Which node gets a request: policies, each a function of the requests that nodes have and of the prompt's beginning.

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
"""From the requests of each node, waiting and running, and the prompt's beginning, to the node's index."""

POINTS_PER_NODE = 64
"""On the ring: more make the nodes' arcs more even."""
LOAD_BOUND = 1.25
"""A node may have so many times the average number of requests before a beginning goes to the next one."""


def make_policies(num_nodes: int, seed: int) -> dict[str, Policy]:
    """By name; each has a chance of its own."""
    return {
        "random": RandomPolicy(Random(seed)),
        "two choices": TwoChoices(Random(seed)),
        "least": least,
        "affinity": PrefixAffinity(num_nodes, Random(seed), bound=math.inf),
        "affinity, bounded": PrefixAffinity(num_nodes, Random(seed), bound=LOAD_BOUND),
    }


class RandomPolicy:
    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG002 - as `Policy` has it
        return self._chance.randrange(len(loads))


class TwoChoices:
    """The less loaded of two at random."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG002 - as `Policy` has it
        first, second = self._chance.randrange(len(loads)), self._chance.randrange(len(loads))
        return min(first, second, key=loads.__getitem__)


def least(loads: Sequence[int], prefix: int | None) -> int:  # noqa: ARG001 - as `Policy` has it
    """The least loaded of all, known exactly and at once: a bound that real routers don't reach."""
    return loads.index(min(loads))


class PrefixAffinity:
    """A beginning's node is the next one on a ring of hashes, past those that are over their bound.

    Prompts that share no beginning go by two choices.
    """

    def __init__(self, num_nodes: int, chance: Random, *, bound: float) -> None:
        points = [
            (_hash(f"node {node} {point}"), node) for node in range(num_nodes) for point in range(POINTS_PER_NODE)
        ]
        self._points = sorted(points)
        self._bound = bound
        self._two_choices = TwoChoices(chance)

    def __call__(self, loads: Sequence[int], prefix: int | None) -> int:
        if prefix is None:
            return self._two_choices(loads, prefix)
        # With one request more than there are some node is always below the bound.
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
