"""Inverse-CDF search, and sums of exponentials."""

import numpy as np
from numpy.typing import NDArray


def find_indices(cumulated: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.intp]:
    """The index whose mass each point (N,) falls on.

    `cumulated` (N, K): cumulative sums of the masses along the row. A point beyond all masses has index K; an index
    without mass is never found.
    """
    indices: NDArray[np.intp] = (cumulated <= points[:, None]).sum(axis=1)
    return indices


def search_cdf(
    cumulated: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The index that each point (N,) falls on, and the point's distance from the start of its mass (N,)."""
    indices = find_indices(cumulated, points)
    starts = np.where(indices > 0, cumulated[np.arange(len(indices)), indices - 1], 0.0)
    return indices, points - starts


def scale_uniforms(uniforms: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """`uniforms` (N,) times positive `totals` (N,), kept below the totals if a product rounds up."""
    return np.minimum(uniforms * totals, np.nextafter(totals, 0.0))


def sum_exponentials(
    logits: NDArray[np.float32], maxima: NDArray[np.float32], inverse_temperatures: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums (R,) of exp((logit - maximum) * inverse temperature) over rows (R, V).

    Row by row in one buffer, which stays in the core's cache.
    """
    sums = np.empty(len(logits))
    masses = np.empty(logits.shape[1], dtype=np.float32)
    for index, inverse_temperature in enumerate(inverse_temperatures.astype(np.float32)):
        np.subtract(logits[index], maxima[index], out=masses)
        if inverse_temperature != 1.0:
            np.multiply(masses, inverse_temperature, out=masses)
        np.exp(masses, out=masses)
        sums[index] = masses.sum()  # pairwise: good to 1e-7
    return sums
