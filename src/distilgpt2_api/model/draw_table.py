"""Sampling parameters of many rows, as columns, and which rows draw by which rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawTable:
    """How R rows draw, each array (R,)."""

    inverse_temperatures: NDArray[np.float64]
    top_ks: NDArray[np.int64]
    """The vocabulary's size where it is off."""
    top_ps: NDArray[np.float64]
    """Infinity where it is off: a mass that no row reaches."""
    min_ps: NDArray[np.float64]
    has_top_k: NDArray[np.bool_]
    has_top_p: NDArray[np.bool_]

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int) -> Self:
        """Of rows that aren't greedy."""
        top_ks = np.array([one.top_k for one in params], dtype=np.int64)
        top_ps = np.array([one.top_p for one in params])
        has_top_k = (top_ks > 0) & (top_ks < vocab_size)
        has_top_p = top_ps < 1.0
        return cls(
            inverse_temperatures=1.0 / np.array([one.temperature for one in params]),
            top_ks=np.where(has_top_k, top_ks, vocab_size),
            top_ps=np.where(has_top_p, top_ps, np.inf),
            min_ps=np.array([one.min_p for one in params]),
            has_top_k=has_top_k,
            has_top_p=has_top_p,
        )

    def take_rows(self, rows: NDArray[np.intp]) -> DrawTable:
        """Those of some rows; the same object where that is all of them."""
        if len(rows) == len(self.top_ks):
            return self
        return DrawTable(
            inverse_temperatures=self.inverse_temperatures[rows],
            top_ks=self.top_ks[rows],
            top_ps=self.top_ps[rows],
            min_ps=self.min_ps[rows],
            has_top_k=self.has_top_k[rows],
            has_top_p=self.has_top_p[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRules:
    """What the parameters of a step's rows say, sorted by rule. Indices of rows are ascending."""

    params: Sequence[SamplingParams]
    """One for each row."""
    processed: Sequence[int]
    """Rows whose logits are edited first."""
    scored: Sequence[int]
    """Rows that want log-probabilities."""
    greedy: NDArray[np.intp]
    full: NDArray[np.intp]
    """Rows that draw from the whole distribution."""
    full_table: DrawTable
    truncated: NDArray[np.intp]
    """Rows with top-k, top-p or min-p."""
    truncated_table: DrawTable

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int) -> Self:
        greedy, full, truncated = [], [], []
        for index, one in enumerate(params):
            if one.is_greedy or one.top_k == 1:
                greedy.append(index)
            elif 0 < one.top_k < vocab_size or one.top_p < 1.0 or one.min_p > 0.0:
                truncated.append(index)
            else:
                full.append(index)
        return cls(
            params=params,
            processed=[index for index, one in enumerate(params) if one.has_logits_processors],
            scored=[index for index, one in enumerate(params) if one.num_logprobs is not None],
            greedy=np.array(greedy, dtype=np.intp),
            full=np.array(full, dtype=np.intp),
            full_table=DrawTable.of([params[index] for index in full], vocab_size),
            truncated=np.array(truncated, dtype=np.intp),
            truncated_table=DrawTable.of([params[index] for index in truncated], vocab_size),
        )
