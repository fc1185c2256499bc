"""Samples with top-k, top-p and min-p."""

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.numerics import find_indices, scale_uniforms, sum_exponentials
from distilgpt2_api.model.sampling.random_numbers import draw_uniforms
from distilgpt2_api.model.sampling.rules import SamplingColumns
from distilgpt2_api.model.sampling.top_candidates import Candidates, find_candidates, sort_row

NUM_MORE_CANDIDATES = 2048
"""Candidates for a single row if the first number was too small, before the whole vocabulary."""


def sample_truncated(maxima: GroupMaxima, columns: SamplingColumns, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Token ids (R,) for rows with finite largest logits, exactly as if each row had been fully sorted.

    `keys` (R,) are the keys of the rows' random numbers.
    """
    uniforms = draw_uniforms(keys)
    totals = _sum_masses(maxima, columns)
    candidates = find_candidates(maxima, columns.num_candidates)
    token_ids, is_decided = sample_candidates(candidates, columns, totals, uniforms)
    vocab_size = maxima.logits.shape[1]
    for index in np.flatnonzero(~is_decided):
        row = np.array([index])
        for count in (columns.top_ks[index] if columns.has_top_k[index] else NUM_MORE_CANDIDATES, vocab_size):
            candidates = sort_row(maxima.logits[index], count)
            one = sample_candidates(candidates, columns.take_rows(row), totals[row], uniforms[row])
            token_ids[row], is_enough = one
            if is_enough.all():
                break
    return token_ids


def sample_candidates(
    candidates: Candidates, columns: SamplingColumns, totals: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids (R,), and whether the candidates were enough to decide (R,); if not, the id is meaningless.

    `totals` (R,): sum over the whole row of exp((logit - largest logit) / temperature), used for top-p without top-k.

    Inverse CDF over the tokens in descending order. Top-p keeps a token if the mass before it is below p times the mass
    that top-k left; min-p keeps a token with at least that fraction of the first one's mass. Both keep the first.
    """
    rows, places = np.arange(len(totals)), np.arange(candidates.logits.shape[1])
    logits = candidates.logits.astype(np.float64)
    masses = np.exp((logits - logits[:, :1]) * columns.inverse_temperatures[:, None])  # (R, M), descending from 1
    masses[places >= columns.top_ks[:, None]] = 0.0
    cumulated = masses.cumsum(axis=1)
    num_kept = np.minimum(columns.top_ks, candidates.counts)
    is_decided = candidates.is_complete | (columns.top_ks <= candidates.counts)
    if columns.is_cut_by_mass:
        goals = columns.top_ps * np.where(columns.has_top_k, cumulated[:, -1], totals)
        np.minimum(num_kept, 1 + (cumulated[:, :-1] < goals[:, None]).sum(axis=1), out=num_kept)
        np.minimum(num_kept, (masses >= columns.min_ps[:, None]).sum(axis=1), out=num_kept)
        # The cut is certain if it falls within the candidates, or if their mass reaches the goal.
        is_cut = (num_kept < candidates.counts) | (cumulated[:, -1] >= goals)
        is_decided |= is_cut & ~(columns.has_top_k & columns.has_top_p)  # their goal needs the mass of all top-k tokens
    hits = find_indices(cumulated, scale_uniforms(uniforms, cumulated[rows, num_kept - 1]))
    return candidates.token_ids[rows, hits], is_decided


def _sum_masses(maxima: GroupMaxima, columns: SamplingColumns) -> NDArray[np.float64]:
    """Sums (R,) over whole rows that have top-p without top-k; 1 for other rows."""
    totals = np.ones(len(maxima.logits))
    if not columns.is_cut_by_mass:
        return totals
    rows = np.flatnonzero(columns.has_top_p & ~columns.has_top_k)
    if len(rows):
        taken = maxima.take_rows(rows)
        totals[rows] = sum_exponentials(taken.logits, taken.of_rows, columns.inverse_temperatures[rows])
    return totals
