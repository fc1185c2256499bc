"""Finds the likeliest tokens of many rows at once, exactly and in order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.group_maxima import GROUP_SIZE, GroupMaxima

_LOW_BITS = np.int64(0xFFFFFFFF)
_SIGN_FREE = np.int32(0x7FFFFFFF)
_LOWEST = np.finfo(np.float32).min
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The largest logits of R rows, in descending order; among equals the lower token id is first."""

    logits: NDArray[np.float32]
    """(R, M), -inf after the row's last candidate."""
    token_ids: NDArray[np.int64]
    """(R, M)"""
    counts: NDArray[np.intp]
    """(R,): number of candidates of each row. No other column has a logit above the last candidate's."""
    is_complete: NDArray[np.bool_]
    """(R,): whether every other logit is -inf, so no other token can be sampled."""


def find_candidates(maxima: GroupMaxima, count: int) -> Candidates:
    """At least the `count` largest logits of every row, or all above -inf if there are fewer.

    Exact: at least `count` blocks, and so `count` columns, reach the threshold, and only groups whose maximum reaches
    it can have such columns.
    """
    num_rows, num_blocks = maxima.of_blocks.shape
    vocab_size = maxima.logits.shape[1]
    if count >= num_blocks:
        return _sort_all(maxima.logits, np.arange(vocab_size)[None], is_complete=True)
    if num_rows == 1:
        return _find_in_one_row(maxima, count)
    threshold = np.partition(maxima.of_blocks, num_blocks - count, axis=1)[:, num_blocks - count]  # (R,)
    np.maximum(threshold, _LOWEST, out=threshold)  # never -inf, which padding groups would reach
    rows, groups = np.divmod(np.flatnonzero(maxima.of_groups >= threshold[:, None]), maxima.of_groups.shape[1])
    columns = maxima.locate_columns(rows, groups)  # (N, GROUP_SIZE)
    values = maxima.logits.reshape(-1).take(columns, mode="clip")
    hits = np.flatnonzero(values >= threshold[rows, None])
    rows = rows[hits // GROUP_SIZE]
    values, token_ids = values.reshape(-1)[hits], columns.reshape(-1)[hits] - rows * vocab_size
    is_within = token_ids < vocab_size
    if not is_within.all():
        rows, values, token_ids = rows[is_within], values[is_within], token_ids[is_within]
    counts = np.bincount(rows, minlength=num_rows)
    places = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    keys = np.full((num_rows, counts.max()), _LAST)
    keys[rows, places] = _pack_keys(values, token_ids)
    keys.sort(axis=1)
    return _unpack(keys, counts, counts < count)


def _find_in_one_row(maxima: GroupMaxima, count: int) -> Candidates:
    """`find_candidates` for one row, with a third of the NumPy calls; each costs more than reading the row."""
    groups, logits = maxima.of_groups[0], maxima.logits[0]
    threshold = max(np.partition(groups, len(groups) - count)[len(groups) - count], _LOWEST)
    token_ids = np.flatnonzero(logits >= threshold)
    return _sort_all(logits[None, token_ids], token_ids[None], is_complete=len(token_ids) < count)


def sort_row(logits: NDArray[np.float32], count: int) -> Candidates:
    """`find_candidates` for one row (V,) and any `count`. Slow: for rows that few candidates don't decide."""
    vocab_size = len(logits)
    if count >= vocab_size:
        token_ids = np.arange(vocab_size)
    else:
        token_ids = np.flatnonzero(logits >= np.partition(logits, vocab_size - count)[vocab_size - count])
    return _sort_all(logits[None, token_ids], token_ids[None], is_complete=len(token_ids) == vocab_size)


def _sort_all(values: NDArray[np.float32], token_ids: NDArray[np.int64], *, is_complete: bool) -> Candidates:
    num_rows, count = values.shape
    keys = _pack_keys(values, token_ids)
    keys.sort(axis=1)
    return _unpack(keys, np.full(num_rows, count), np.full(num_rows, is_complete))


def _pack_keys(values: NDArray[np.float32], token_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integers that sort by descending value, then ascending token id, in one vectorised sort."""
    # + 0.0 turns -0.0 into 0.0: they are equal as numbers, but not as bits.
    bits = (values + np.float32(0.0)).view(np.int32)
    ordered = bits ^ ((bits >> 31) & _SIGN_FREE)  # as integers in the order of the floats
    return ((~ordered).astype(np.int64) << 32) | token_ids


def _unpack(keys: NDArray[np.int64], counts: NDArray[np.intp], is_complete: NDArray[np.bool_]) -> Candidates:
    ordered = ~(keys >> 32).astype(np.int32)
    logits = (ordered ^ ((ordered >> 31) & _SIGN_FREE)).view(np.float32)
    logits[keys == _LAST] = -np.inf
    return Candidates(logits=logits, token_ids=keys & _LOW_BITS, counts=counts, is_complete=is_complete)
