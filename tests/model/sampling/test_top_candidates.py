"""The likeliest tokens are found exactly, for any row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.top_candidates import Candidates, find_candidates, sort_row


def expect_largest(candidates: Candidates, logits: NDArray[np.float32], count: int) -> None:
    """Assert that the candidates are a long enough prefix of the row sorted by logit, then token id."""
    for index, row in enumerate(logits):
        order = np.lexsort((np.arange(len(row)), -row))
        num_candidates = candidates.counts[index]
        assert num_candidates >= min(count, np.isfinite(row).sum())
        assert candidates.token_ids[index, :num_candidates].tolist() == order[:num_candidates].tolist()
        assert candidates.logits[index, :num_candidates].tolist() == row[order[:num_candidates]].tolist()
        assert np.all(candidates.logits[index, num_candidates:] == -np.inf)
        if candidates.is_complete[index]:
            assert np.all(row[order[num_candidates:]] == -np.inf)


@pytest.mark.parametrize("vocab_size", [1, 2, 7, 63, 64, 65, 97, 4_095, 4_161, 5_000, 50_257])
@pytest.mark.parametrize("count", [1, 64, 200])
def test_candidates_are_the_largest(vocab_size: int, count: int) -> None:
    """For vocabularies that do and don't fill whole groups, and smaller than the count."""
    logits = np.random.default_rng(vocab_size).standard_normal((3, vocab_size)).astype(np.float32)
    expect_largest(find_candidates(GroupMaxima.of(logits), count), logits, count)
    expect_largest(sort_row(logits[0], count), logits[:1], count)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_candidates_are_the_largest_among_equals(data: st.DataObject) -> None:
    """Rows with many equal, banned and zero logits of either sign."""
    vocab_size = data.draw(st.integers(1, 3_000))
    values = np.array([-np.inf, -2.0, -0.0, 0.0, 1.0, 3.0], dtype=np.float32)
    seed = data.draw(st.integers(0, 2**32))
    logits = np.random.default_rng(seed).choice(values, size=(2, vocab_size))
    logits[:, data.draw(st.integers(0, vocab_size - 1))] = 2.0
    count = data.draw(st.integers(1, 80))
    expect_largest(find_candidates(GroupMaxima.of(logits), count), logits, count)


def test_few_candidates_are_enough_if_the_rest_is_banned() -> None:
    """With fewer finite logits than requested all are candidates, and `is_complete` is set."""
    logits = np.full((2, 50_257), -np.inf, dtype=np.float32)
    logits[0, [50_256, 3, 17]] = 1.0, 2.0, 1.0
    logits[1] = 0.0
    candidates = find_candidates(GroupMaxima.of(logits), 64)
    assert candidates.token_ids[0, :3].tolist() == [3, 17, 50_256]
    assert candidates.is_complete.tolist() == [True, False]
    assert candidates.counts.tolist() == [3, 50_257]


@pytest.mark.parametrize("vocab_size", [1, 9, 97, 50_257])
def test_maxima_propagate_nan(vocab_size: int) -> None:
    """A NaN at any position makes its row's maximum NaN, and no other."""
    logits = np.zeros((3, vocab_size), dtype=np.float32)
    logits[1, vocab_size - 1] = np.nan
    assert np.isnan(GroupMaxima.of(logits).of_rows).tolist() == [False, True, False]
