"""Inverse CDF: where a point that falls on masses laid end to end comes to lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_places(
    cumulated: NDArray[np.float64], totals: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Place hit in each row (R,), and how far into it, from 0 to 1 (R,).

    `cumulated` (R, N): masses summed up along the row; `totals` (R,): its value at the last place that may be hit,
    positive; `uniforms` (R,): points in [0, 1). A place without mass is never hit.
    """
    rows = np.arange(len(cumulated))
    points = np.minimum(uniforms * totals, np.nextafter(totals, 0.0))  # the product may round up to the total
    places = np.count_nonzero(cumulated <= points[:, None], axis=1)
    starts = np.where(places > 0, cumulated[rows, places - 1], 0.0)
    return places, (points - starts) / (cumulated[rows, places] - starts)
