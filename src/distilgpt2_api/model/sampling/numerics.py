"""Inverse CDF: where a point that falls on masses laid end to end comes to lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_places(cumulated: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Place hit by each point (N,).

    `cumulated` (N, K): masses summed up along the row. A point beyond all of them hits place K; a place without mass is
    never hit.
    """
    places: NDArray[np.intp] = (cumulated <= points[:, None]).sum(axis=1)
    return places


def descend(
    cumulated: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Place hit by each point (N,), and how far the point lies beyond its beginning (N,)."""
    places = find_places(cumulated, points)
    starts = np.where(places > 0, cumulated[np.arange(len(places)), places - 1], 0.0)
    return places, points - starts


def aim(uniforms: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N,) below their positive totals (N,), also where a product of both rounds up to the total."""
    return np.minimum(uniforms * totals, np.nextafter(totals, 0.0))


def sum_exponentials(
    logits: NDArray[np.float32], maxima: NDArray[np.float32], inverse_temperatures: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums (R,) of exp((logit - maximum) * inverse temperature) over rows (R, V).

    Row by row in one buffer, which stays in the core's cache. A graph in OpenVINO took half the time where both cores
    were idle, and several times as long where they were not.
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
