"""Sampling parameters of many rows, as columns, and the rule by which each row is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors
from distilgpt2_api.model.sampling.random_numbers import open_streams

NUM_CANDIDATES = 64
"""Likeliest tokens considered first for a row without top-k; most rows need no more."""
MAX_CANDIDATES = 256
"""For a row with top-k, top-k tokens are considered first, up to this limit. A larger top-k slows only its own row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingColumns:
    """Sampling parameters of R rows; each array is (R,)."""

    streams: NDArray[np.uint64]
    """The rows' random number streams."""
    inverse_temperatures: NDArray[np.float64]
    top_ks: NDArray[np.int64]
    """The vocabulary's size if top-k is off."""
    top_ps: NDArray[np.float64]
    """Infinity if top-p is off: a mass that no row reaches."""
    min_ps: NDArray[np.float64]
    has_top_k: NDArray[np.bool_]
    has_top_p: NDArray[np.bool_]
    is_cut_by_mass: bool
    """Whether any row has top-p or min-p."""
    num_candidates: int
    """Number of likeliest tokens considered first, for all rows."""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], seeds: Sequence[int], vocab_size: int) -> Self:
        """Columns for rows that aren't greedy."""
        top_ks = np.array([one.top_k for one in params], dtype=np.int64)
        top_ps = np.array([one.top_p for one in params])
        has_top_k = (top_ks > 0) & (top_ks < vocab_size)
        has_top_p = top_ps < 1.0
        min_ps = np.array([one.min_p for one in params])
        served = top_ks[has_top_k & (top_ks <= MAX_CANDIDATES)]
        return cls(
            streams=open_streams(seeds),
            inverse_temperatures=1.0 / np.array([one.temperature for one in params]),
            top_ks=np.where(has_top_k, top_ks, vocab_size),
            top_ps=np.where(has_top_p, top_ps, np.inf),
            min_ps=min_ps,
            has_top_k=has_top_k,
            has_top_p=has_top_p,
            is_cut_by_mass=bool(has_top_p.any() or min_ps.any()),
            num_candidates=max(1 if has_top_k.all() else NUM_CANDIDATES, int(served.max(initial=0))),
        )

    def take_rows(self, rows: NDArray[np.intp]) -> SamplingColumns:
        """The columns of `rows`; the same object if these are all."""
        if len(rows) == len(self.top_ks):
            return self
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {
            name: column[rows] for name, column in columns.items() if isinstance(column, np.ndarray)
        }
        return replace(self, **taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """The sampling parameters of a step's rows, sorted by rule. Row indices are ascending."""

    params: Sequence[SamplingParams]
    """One for each row, as in `seeds`."""
    seeds: Sequence[int]
    processed: Sequence[tuple[int, LogitsProcessors]]
    """Rows whose logits are edited first. Rows with a grammar are last: their masks may still be computed."""
    scored: Sequence[int]
    """Rows with log-probabilities."""
    greedy: NDArray[np.intp]
    full: NDArray[np.intp]
    """Rows sampled from the whole distribution."""
    full_columns: SamplingColumns
    truncated: NDArray[np.intp]
    """Rows with top-k, top-p or min-p."""
    truncated_columns: SamplingColumns

    @classmethod
    def of(
        cls,
        params: Sequence[SamplingParams],
        seeds: Sequence[int],
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
    ) -> Self:
        greedy, full, truncated = [], [], []
        for index, one in enumerate(params):
            if one.is_greedy or one.top_k == 1:
                greedy.append(index)
            elif 0 < one.top_k < vocab_size or one.top_p < 1.0 or one.min_p > 0.0:
                truncated.append(index)
            else:
                full.append(index)

        def take(rows: Sequence[int]) -> SamplingColumns:
            return SamplingColumns.of([params[row] for row in rows], [seeds[row] for row in rows], vocab_size)

        processed = [index for index, one in enumerate(params) if one.has_logits_processors]
        processed.sort(key=lambda index: params[index].grammar is not None)
        return cls(
            params=params,
            seeds=seeds,
            processed=[(index, LogitsProcessors.of(params[index], eos_token_ids=eos_token_ids)) for index in processed],
            scored=[index for index, one in enumerate(params) if one.num_logprobs is not None],
            greedy=np.array(greedy, dtype=np.intp),
            full=np.array(full, dtype=np.intp),
            full_columns=take(full),
            truncated=np.array(truncated, dtype=np.intp),
            truncated_columns=take(truncated),
        )
