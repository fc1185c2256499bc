"""Draws after top-k, top-p and min-p."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.numerics import aim, find_places, sum_exponentials
from distilgpt2_api.model.sampling.random_numbers import draw_uniforms
from distilgpt2_api.model.sampling.rules import DrawTable
from distilgpt2_api.model.sampling.top_candidates import Candidates, find_candidates, sort_row

NUM_MORE_CANDIDATES = 2048
"""What is tried row by row where the table's number was too little, before the whole vocabulary."""


def draw_truncated(maxima: GroupMaxima, table: DrawTable, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Token ids (R,) for rows whose largest logits are finite, exactly as if each had been sorted whole.

    `keys` (R,) are of the rows' random numbers.
    """
    uniforms = draw_uniforms(keys)
    totals = _sum_masses(maxima, table)
    candidates = find_candidates(maxima, table.num_candidates)
    token_ids, is_decided = draw_from_candidates(candidates, table, totals, uniforms)
    vocab_size = maxima.logits.shape[1]
    for index in np.flatnonzero(~is_decided):
        row = np.array([index])
        for count in (table.top_ks[index] if table.has_top_k[index] else NUM_MORE_CANDIDATES, vocab_size):
            candidates = sort_row(maxima.logits[index], count)
            one = draw_from_candidates(candidates, table.take_rows(row), totals[row], uniforms[row])
            token_ids[row], is_enough = one
            if is_enough.all():
                break
    return token_ids


def draw_from_candidates(
    candidates: Candidates, table: DrawTable, totals: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids (R,), and whether the candidates were enough to tell (R,); where not, the id is meaningless.

    `totals` (R,): sum over the whole row of exp((logit - largest logit) / temperature), read for top-p without top-k.

    By inverse CDF over the tokens in descending order. Top-p keeps a token if the mass before it is below p of what
    top-k left; min-p keeps one with at least that fraction of the first one's mass. Either keeps the first.
    """
    rows, places = np.arange(len(totals)), np.arange(candidates.logits.shape[1])
    logits = candidates.logits.astype(np.float64)
    masses = np.exp((logits - logits[:, :1]) * table.inverse_temperatures[:, None])  # (R, M), descending from 1
    masses[places >= table.top_ks[:, None]] = 0.0
    cumulated = masses.cumsum(axis=1)
    num_kept = np.minimum(table.top_ks, candidates.counts)
    is_decided = candidates.is_complete | (table.top_ks <= candidates.counts)
    if table.is_cut_by_mass:
        goals = table.top_ps * np.where(table.has_top_k, cumulated[:, -1], totals)
        np.minimum(num_kept, 1 + (cumulated[:, :-1] < goals[:, None]).sum(axis=1), out=num_kept)
        np.minimum(num_kept, (masses >= table.min_ps[:, None]).sum(axis=1), out=num_kept)
        is_cut = (num_kept < candidates.counts) | (cumulated[:, -1] >= goals)  # not kept whole for want of more
        is_decided |= is_cut & ~(table.has_top_k & table.has_top_p)  # whose goal needs all of the top k
    hits = find_places(cumulated, aim(uniforms, cumulated[rows, num_kept - 1]))
    return candidates.token_ids[rows, hits], is_decided


def _sum_masses(maxima: GroupMaxima, table: DrawTable) -> NDArray[np.float64]:
    """Sums (R,) over whole rows, where top-p measures against them; 1 elsewhere."""
    totals = np.ones(len(maxima.logits))
    if not table.is_cut_by_mass:
        return totals
    rows = np.flatnonzero(table.has_top_p & ~table.has_top_k)
    if len(rows):
        taken = maxima.take_rows(rows)
        totals[rows] = sum_exponentials(taken.logits, taken.of_rows, table.inverse_temperatures[rows])
    return totals
