"""Draws from the whole distribution: no truncation, as OpenAI's defaults have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.draw_table import DrawTable
from distilgpt2_api.model.exponential_sums import WIDTH, ExponentialSums
from distilgpt2_api.model.inverse_cdf import find_places


def draw_full(
    logits: NDArray[np.float32],
    maxima: NDArray[np.float32],
    table: DrawTable,
    sums: ExponentialSums,
) -> NDArray[np.int64]:
    """Token ids (R,) for rows (R, V) with their largest logits (R,): first a part of the row, then a column in it."""
    if not len(logits):
        return np.zeros(0, dtype=np.int64)
    vocab_size = logits.shape[1]
    part_masses = sums.compute(logits, maxima, table.inverse_temperatures)
    cumulated = np.cumsum(part_masses, axis=1, dtype=np.float64)  # (R, P)
    parts, uniforms_within = find_places(cumulated, cumulated[:, -1], table.uniforms)
    token_ids = parts[:, None] + np.arange(0, WIDTH * sums.num_parts, sums.num_parts)  # (R, WIDTH)
    values = np.take_along_axis(logits, np.minimum(token_ids, vocab_size - 1), axis=1).astype(np.float64)
    values[token_ids >= vocab_size] = -np.inf
    masses = np.exp((values - maxima[:, None]) * table.inverse_temperatures[:, None])
    cumulated = np.cumsum(masses, axis=1)
    places, _ = find_places(cumulated, cumulated[:, -1], uniforms_within)
    return token_ids[np.arange(len(logits)), places]
