"""Seeds of sequences, derived from the seed of their request."""

from collections.abc import Callable

NO_SEED = -1
"""Clients of vLLM and llama.cpp send this for no seed. Other negative numbers are seeds, modulo 2**64."""

_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def choose_seed(requested: int | None, draw: Callable[[], int]) -> int:
    """The requested seed, or a random one if none was requested."""
    return draw() if requested is None or requested == NO_SEED else requested


def sequence_seed(seed: int, index: int) -> int:
    """Seed of a request's sequence `index` (from 0), in [0, 2**64).

    Sequence 0 keeps the request's seed (modulo 2**64), so that n = 1 and the first of n > 1 give the same text. The
    others get outputs of a SplitMix64 generator (Steele, Lea and Flood 2014) that starts from it.
    """
    seed &= _MASK
    if index == 0:
        return seed
    z = (seed + index * _GOLDEN_GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
