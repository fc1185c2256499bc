"""Sums of exponentials over whole rows: the denominators of softmax."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
