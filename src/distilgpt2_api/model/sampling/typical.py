"""Locally typical sampling (Meister et al. 2023): only tokens with nearly average information can be sampled."""

import numpy as np
from numpy.typing import NDArray

_LEAST_EXPONENT = np.float32(-120.0)
"""Its exp() is nearly 0 in float32: smaller exponents have no weight."""
_FIRST_WIDTH = 1.0
"""In nats. Tokens within this distance are considered first, then within twice as much: rarely over a few thousand."""
_BINS_PER_NAT = np.float32(32)


def keep_typical(logits: NDArray[np.float32], *, temperature: float, typical_p: float) -> None:
    """Set the `logits` (V,) of untypical tokens to -inf, if the largest logit is finite.

    The distribution is softmax(logits / temperature). A token's distance is |information - entropy|, with information
    -log p. The tokens with the smallest distances are kept until their probability reaches `typical_p`: at least one,
    and either all tokens of equal distance or none. As `TypicalLogitsWarper` of transformers.
    """
    largest = logits.max()
    if not np.isfinite(largest):
        return
    exponents = (logits - largest) * np.float32(1.0 / temperature)
    np.maximum(exponents, _LEAST_EXPONENT, out=exponents)  # -inf times no mass is not a number
    masses = np.exp(exponents)
    total = float(masses.sum())
    # -log p is log(total) - exponent, and the entropy is its mean: the logarithm cancels in their difference.
    mean = np.float32(float((masses * exponents).sum()) / total)
    distances = np.abs(exponents - mean)
    np.copyto(logits, -np.inf, where=distances > _find_limit(distances, masses, typical_p * total))


def _find_limit(distances: NDArray[np.float32], masses: NDArray[np.float32], goal: float) -> np.float32:
    """The smallest distance within which the mass reaches the goal. Sorts only the tokens at the border."""
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
    """Distances and masses of the nearest tokens, with more mass than the goal, or of all tokens."""
    width = _FIRST_WIDTH
    while True:
        near = np.flatnonzero(distances <= width)
        if len(near) == len(distances):
            return distances, masses
        near_masses = masses[near]
        if near_masses.sum(dtype=np.float64) > goal:
            return distances[near], near_masses
        width *= 2
