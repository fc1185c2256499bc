"""Seeds of sequences, made from the seed of their request."""

from __future__ import annotations

from collections.abc import Callable

NO_SEED = -1
"""What clients of vLLM and llama.cpp send for no seed. Other negative numbers are seeds, modulo 2**64."""

_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def choose_seed(asked: int | None, draw: Callable[[], int]) -> int:
    """The seed that a request asks for, or a drawn one if it asks for none."""
    return draw() if asked is None or asked == NO_SEED else asked


def sequence_seed(seed: int, index: int) -> int:
    """Seed of a request's sequence `index` (from 0), in [0, 2**64).

    Sequence 0 keeps the request's seed (modulo 2**64), so that n = 1 and the first of n > 1 draw the same; the others
    get outputs of a SplitMix64 generator (Steele, Lea and Flood 2014) started from it.
    """
    seed &= _MASK
    if index == 0:
        return seed
    z = (seed + index * _GOLDEN_GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
