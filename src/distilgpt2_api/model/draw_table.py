"""Sampling parameters of many rows, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.random_numbers import make_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawTable:
    """How R rows draw, each array (R,)."""

    inverse_temperatures: NDArray[np.float64]
    top_ks: NDArray[np.int64]
    """The vocabulary's size where it is off."""
    top_ps: NDArray[np.float64]
    """Infinity where it is off: a mass that no row reaches."""
    min_ps: NDArray[np.float64]
    keys: NDArray[np.uint64]
    """Of the row's random numbers."""
    has_top_k: NDArray[np.bool_]
    has_top_p: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[PlanRow], vocab_size: int) -> DrawTable:
        """Of rows that aren't greedy."""
        params = [row.params for row in rows]
        top_ks = np.array([one.top_k for one in params])
        top_ps = np.array([one.top_p for one in params])
        has_top_k = (top_ks > 0) & (top_ks < vocab_size)
        has_top_p = top_ps < 1.0
        return cls(
            inverse_temperatures=1.0 / np.array([one.temperature for one in params]),
            top_ks=np.where(has_top_k, top_ks, vocab_size),
            top_ps=np.where(has_top_p, top_ps, np.inf),
            min_ps=np.array([one.min_p for one in params]),
            keys=make_keys([row.seed for row in rows], [len(row.token_ids) for row in rows]),
            has_top_k=has_top_k,
            has_top_p=has_top_p,
        )

    def take_rows(self, rows: NDArray[np.intp]) -> DrawTable:
        return DrawTable(
            inverse_temperatures=self.inverse_temperatures[rows],
            top_ks=self.top_ks[rows],
            top_ps=self.top_ps[rows],
            min_ps=self.min_ps[rows],
            keys=self.keys[rows],
            has_top_k=self.has_top_k[rows],
            has_top_p=self.has_top_p[rows],
        )
