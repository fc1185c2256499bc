"""Locally typical sampling (Meister et al. 2023): only tokens of nearly average information can be drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_EXPONENT = np.float32(-120.0)
"""exp() of it is 0 in float32, near enough: what lies below weighs nothing."""
_FIRST_WIDTH = 1.0
"""In nats: tokens whose information is as near to the average are looked at first, then those within twice as much."""


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
    """The least distance within which the mass reaches the goal. Sorts only what is near: a few hundred as a rule."""
    width = _FIRST_WIDTH
    near = np.flatnonzero(distances <= width)
    while len(near) < len(distances) and masses[near].sum(dtype=np.float64) <= goal:
        width *= 2
        near = np.flatnonzero(distances <= width)
    near = near[distances[near].argsort()]
    place = int(masses[near].cumsum(dtype=np.float64).searchsorted(goal))
    return np.float32(distances[near[min(place, len(near) - 1)]])
