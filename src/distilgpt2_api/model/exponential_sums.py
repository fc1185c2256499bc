"""Sums of exponentials over parts of rows: the denominators of softmax, and a CDF to draw from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 32
"""Columns of a part."""


class ExponentialSums:
    """Row by row in one buffer that stays in the core's cache. Owns that buffer: for one thread at a time.

    Part p of P holds the columns p, p + P, p + 2P …, so that the sum runs over long contiguous stretches.
    """

    def __init__(self, *, vocab_size: int) -> None:
        self.num_parts = -(-vocab_size // WIDTH)
        self._parts = np.zeros((WIDTH, self.num_parts), dtype=np.float32)
        self._masses = self._parts.reshape(-1)[:vocab_size]  # what follows stays 0

    def compute(
        self, logits: NDArray[np.float32], maxima: NDArray[np.float32], inverse_temperatures: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Sums (R, P) of exp((logit - maximum) * inverse temperature) over the parts of rows (R, V)."""
        sums = np.empty((len(logits), self.num_parts), dtype=np.float32)
        masses = self._masses
        for index, inverse_temperature in enumerate(inverse_temperatures.astype(np.float32)):
            np.subtract(logits[index], maxima[index], out=masses)
            if inverse_temperature != 1.0:
                np.multiply(masses, inverse_temperature, out=masses)
            np.exp(masses, out=masses)
            self._parts.sum(axis=0, out=sums[index])
        return sums
