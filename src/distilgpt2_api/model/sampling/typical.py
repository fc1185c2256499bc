"""Locally typical sampling (Meister et al. 2023): only tokens of nearly average information can be drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_EXPONENT = np.float32(-120.0)
"""exp() of it is 0 in float32, near enough: what lies below weighs nothing."""
_FIRST_WIDTH = 1.0
"""In nats. Tokens within it are looked at first, then those within twice as much: seldom more than a few thousand."""
_BINS_PER_NAT = np.float32(32)


def keep_typical(logits: NDArray[np.float32], *, temperature: float, typical_p: float) -> None:
    """Set the `logits` (V,) of untypical tokens to -inf; unless their largest is finite, nothing happens.

    The distribution is softmax(logits / temperature). A token's distance is that of its information -log p to its mean,
    the entropy. Those with the least distances are kept, until their probability reaches `typical_p`: one at least, and
    all of equal distance, or none. As `TypicalLogitsWarper` of transformers does.
    """
    largest = logits.max()
    if not np.isfinite(largest):
        return
    exponents = (logits - largest) * np.float32(1.0 / temperature)
    np.maximum(exponents, _LEAST_EXPONENT, out=exponents)  # -inf times no mass is not a number
    masses = np.exp(exponents)
    total = float(masses.sum())
    # -log p is log(total) - exponent, the entropy its mean: in their difference the logarithm cancels.
    mean = np.float32(float((masses * exponents).sum()) / total)
    distances = np.abs(exponents - mean)
    np.copyto(logits, -np.inf, where=distances > _find_limit(distances, masses, typical_p * total))


def _find_limit(distances: NDArray[np.float32], masses: NDArray[np.float32], goal: float) -> np.float32:
    """The least distance within which the mass reaches the goal. Sorts no more than those at the border."""
    distances, masses = _take_near(distances, masses, goal)
    bins = (distances * _BINS_PER_NAT).astype(np.intp)
    reached = np.bincount(bins, weights=masses).cumsum()
    goal = min(max(goal, np.finfo(np.float64).tiny), reached[-1])  # so that a bin with mass in it reaches it
    border = int(reached.searchsorted(goal))
    at_border = np.flatnonzero(bins == border)
    at_border = at_border[distances[at_border].argsort()]
    reached_before = reached[border - 1] if border else 0.0
    place = int(masses[at_border].cumsum(dtype=np.float64).searchsorted(goal - reached_before))
    return np.float32(distances[at_border[min(place, len(at_border) - 1)]])


def _take_near(
    distances: NDArray[np.float32], masses: NDArray[np.float32], goal: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances and masses of the nearest tokens, which have more mass than the goal, or of all."""
    width = _FIRST_WIDTH
    while True:
        near = np.flatnonzero(distances <= width)
        if len(near) == len(distances):
            return distances, masses
        near_masses = masses[near]
        if near_masses.sum(dtype=np.float64) > goal:
            return distances[near], near_masses
        width *= 2
