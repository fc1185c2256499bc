"""Samples from the whole distribution, untruncated, without an exponential for every column.

Rejection sampling under an envelope (von Neumann 1951). A group of columns has at most the mass of its largest column
times their number. A random point under these bounds either falls on a column's own mass, and that column is sampled,
or on the bound's excess, and the next point counts. The groups with the largest bounds get their exact mass instead, so
that a third of the points or more are accepted. Exact up to float32 rounding, and at 32 rows half the work of
exponentials over all columns.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.group_maxima import BLOCK_GROUPS, GROUP_SIZE, GroupMaxima
from distilgpt2_api.model.sampling.numerics import find_indices, scale_uniforms, search_cdf
from distilgpt2_api.model.sampling.random_numbers import draw_uniforms
from distilgpt2_api.model.sampling.rules import SamplingColumns

_HEAVY_SHARE = np.float32(1 / 128)
"""A group whose bound exceeds this share of all bounds is summed exactly: at most 128 groups of a row."""
_PROPOSALS_AT_ONCE = 128


def sample_categorical(maxima: GroupMaxima, parameters: SamplingColumns, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Token ids (R,) for rows with finite largest logits; `keys` (R,) are the keys of the rows' random numbers."""
    envelope = _Envelope.over(maxima, parameters.inverse_temperatures.astype(np.float32))
    token_ids = np.empty(len(keys), dtype=np.int64)
    pending = np.arange(len(keys))
    num_proposed = 0
    while len(pending):
        # The first accepted point in order counts, so the number of points at once changes no result.
        num_points = min(max(_PROPOSALS_AT_ONCE // len(pending), 4), 16)
        rows = np.repeat(pending, num_points)
        numbers = np.tile(np.arange(num_proposed, num_proposed + num_points), len(pending))
        drawn, is_accepted = envelope.propose(rows, draw_uniforms(keys[rows], numbers))
        drawn, is_accepted = drawn.reshape(-1, num_points), is_accepted.reshape(-1, num_points)
        first = is_accepted.argmax(axis=1)
        token_ids[pending] = drawn[np.arange(len(pending)), first]
        pending = pending[~is_accepted.any(axis=1)]
        num_proposed += num_points
    return token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    """Upper bounds of the masses of R rows' groups; a row's largest logit has mass 1."""

    maxima: GroupMaxima
    scales: NDArray[np.float32]
    """(R,): inverse temperatures."""
    of_groups: NDArray[np.float32]
    """(R, BLOCK_GROUPS * B), divided by GROUP_SIZE."""
    cumulated: NDArray[np.float64]
    """(R, B): cumulative sums of the blocks' bounds, divided by GROUP_SIZE."""

    @classmethod
    def over(cls, maxima: GroupMaxima, scales: NDArray[np.float32]) -> Self:
        num_rows, num_blocks = maxima.of_blocks.shape
        bounds = maxima.of_groups - maxima.of_rows[:, None]
        bounds *= scales[:, None]
        np.exp(bounds, out=bounds)
        limits = bounds.sum(axis=1, keepdims=True) * _HEAVY_SHARE
        rows, groups = np.divmod(np.flatnonzero(bounds > limits), bounds.shape[1])
        _, masses = _weigh_columns(maxima, scales, rows, groups)
        bounds[rows, groups] = masses.sum(axis=1) / np.float32(GROUP_SIZE)
        of_blocks = bounds.reshape(num_rows, BLOCK_GROUPS, num_blocks).sum(axis=1)
        cumulated = of_blocks.cumsum(axis=1, dtype=np.float64)
        return cls(maxima=maxima, scales=scales, of_groups=bounds, cumulated=cumulated)

    def propose(
        self, rows: NDArray[np.intp], uniforms: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids (N,) at a point in each of `rows` (N,), and which are accepted (N,); others are meaningless."""
        num_blocks = self.cumulated.shape[1]
        blocks, points = search_cdf(self.cumulated[rows], scale_uniforms(uniforms, self.cumulated[rows, -1]))
        groups = blocks[:, None] + np.arange(0, BLOCK_GROUPS * num_blocks, num_blocks)  # (N, BLOCK_GROUPS)
        bounds = self.of_groups[rows[:, None], groups].cumsum(axis=1, dtype=np.float64)
        indices, points = search_cdf(bounds, scale_uniforms(points / bounds[:, -1], bounds[:, -1]))
        token_ids, masses = _weigh_columns(self.maxima, self.scales, rows, blocks + num_blocks * indices)
        columns = find_indices(masses.cumsum(axis=1, dtype=np.float64), points * GROUP_SIZE)
        is_accepted = columns < GROUP_SIZE
        return token_ids[np.arange(len(rows)), np.where(is_accepted, columns, 0)], is_accepted


def _weigh_columns(
    maxima: GroupMaxima, scales: NDArray[np.float32], rows: NDArray[np.intp], groups: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids and masses of the columns of N groups, (N, GROUP_SIZE) each; beyond the vocabulary the mass is 0."""
    vocab_size = maxima.logits.shape[1]
    indices = maxima.locate_columns(rows, groups)
    token_ids = indices - (rows * vocab_size)[:, None]
    values = maxima.logits.reshape(-1).take(indices, mode="clip")
    values[token_ids >= vocab_size] = -np.inf
    return token_ids, np.exp((values - maxima.of_rows[rows, None]) * scales[rows, None])
