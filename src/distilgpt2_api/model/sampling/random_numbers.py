"""Random numbers as a function of a key. Stateless, so a seed gives the same numbers in any batch and any row.

A counter through a strong mixing function is a good generator (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"); the function here is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), applied to the seed first, so that neighbouring seeds give unrelated streams.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def open_streams(seeds: Sequence[int]) -> NDArray[np.uint64]:
    """Random number streams (R,), one for each seed (modulo 2**64)."""
    return _mix(np.array([seed & _MASK for seed in seeds], dtype=np.uint64))


def make_keys(streams: NDArray[np.uint64], positions: Sequence[int]) -> NDArray[np.uint64]:
    """Keys (R,) of the random numbers for the token at `positions[i]` in `streams[i]`."""
    return streams + (np.array(positions, dtype=np.uint64) + np.uint64(1)) * _GOLDEN_GAMMA


def draw_uniforms(keys: NDArray[np.uint64], numbers: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits, one for each key. `numbers` (below 2**32) count within a key."""
    if numbers is not None:
        # The counter of a stream: positions, which are far below 2**32, in its lower half.
        keys = keys + (numbers.astype(np.uint64) << np.uint64(32)) * _GOLDEN_GAMMA
    return (_mix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIER_2
    return z ^ (z >> np.uint64(31))
