"""A fixed reference for ratios: only the matrix products of one step of a model, in float32 by NumPy's BLAS. The
Makefile gives it one thread, because several of BLAS's threads wait for each other on a busy machine.

Ratios to it show the cost of our kernels and Python, on fast and on slow machines.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig

MIN_SECONDS = 0.3
NUM_WARM_UP = 3


class ReferenceKernel:
    """Owns matrices of a model's shape, of its layers and its LM head."""

    def __init__(self, config: ModelConfig) -> None:
        random = np.random.default_rng(0)
        width, inner = config.width, config.inner_width
        shapes = [(width, 3 * width), (width, width), (width, inner), (inner, width)] * config.num_layers
        self._body = [random.standard_normal(shape, np.float32) for shape in shapes]
        self._head = random.standard_normal((width, config.vocab_size), np.float32)

    def rows_per_s(self, num_rows: int, *, has_head: bool = True) -> float:
        """Rows per second in the fastest of several steps."""
        random = np.random.default_rng(1)
        rows: dict[int, NDArray[np.float32]] = {
            depth: random.standard_normal((num_rows, depth), np.float32)
            for depth in {len(matrix) for matrix in (*self._body, self._head)}
        }
        times_s: list[float] = []
        while len(times_s) < NUM_WARM_UP + 1 or sum(times_s) < MIN_SECONDS:
            begin_s = time.perf_counter()
            for matrix in (*self._body, *((self._head,) if has_head else ())):
                rows[len(matrix)] @ matrix
            times_s.append(time.perf_counter() - begin_s)
        return num_rows / min(times_s[NUM_WARM_UP:])
