"""Random numbers that are a function of their key: no state, so a seed draws the same in any batch and any row.

A counter through a strong mixing function is a good generator (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"); the function here is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), applied to the seed first, so that neighbouring seeds give unrelated streams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def make_keys(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.uint64]:
    """Keys (R,) of the random numbers for the token at `positions[i]` under `seeds[i]` (taken modulo 2**64)."""
    streams = _mix(np.array([seed & _MASK for seed in seeds], dtype=np.uint64))
    return streams + (np.array(positions, dtype=np.uint64) + np.uint64(1)) * _GOLDEN_GAMMA


def draw_uniforms(keys: NDArray[np.uint64], numbers: NDArray[np.intp] | int = 0) -> NDArray[np.float64]:
    """Numbers in [0, 1) of 53 random bits, one a key; `numbers` (below 2**32) tell those of a key apart."""
    # The counter of a stream: positions, which are far below 2**32, in its lower half.
    offsets = (np.asarray(numbers, dtype=np.uint64) << np.uint64(32)) * _GOLDEN_GAMMA
    bits = _mix(keys + offsets) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIER_2
    return z ^ (z >> np.uint64(31))
