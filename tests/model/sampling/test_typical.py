"""Locally typical sampling against its definition; `test_sampler.py` draws with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distilgpt2_api.model.sampling.typical import keep_typical

INF = float("inf")


def kept(logits: list[float] | NDArray[np.float32], typical_p: float, temperature: float = 1.0) -> set[int]:
    """Tokens that are kept, with unchanged logits."""
    before = np.array(logits, dtype=np.float32)
    after = before.copy()
    keep_typical(after, temperature=temperature, typical_p=typical_p)
    is_left = after > -np.inf
    assert (after[is_left] == before[is_left]).all()
    return set(np.flatnonzero(is_left).tolist())


@pytest.mark.parametrize(
    ("typical_p", "expected"),
    [
        (1e-6, {1}),
        (0.2, {1}),
        (0.25, {1, 2}),
        (0.4, {1, 2}),
        (0.5, {0, 1, 2}),
        (0.94, {0, 1, 2}),
        (0.96, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_the_most_typical_token_need_not_be_the_likeliest(typical_p: float, expected: set[int]) -> None:
    """Probabilities 0.5, 0.24, 0.21, 0.05: the entropy is 1.167 nats, and the tokens' information 0.693, 1.427, 1.561,
    2.996. So the distances are 0.474, 0.260, 0.394, 1.829, and the tokens come in the order 1, 2, 0, 3.
    """
    assert kept(np.log([0.5, 0.24, 0.21, 0.05]).astype(np.float32), typical_p) == expected


def test_the_temperature_applies_first() -> None:
    """Distances are computed from the distribution after the temperature."""
    logits = np.log(np.array([0.5, 0.24, 0.21, 0.05])).astype(np.float32)
    assert kept(logits, 0.2) == {1}
    assert kept(logits, 0.2, temperature=0.25) == {0}
    assert kept(logits * 0.25, 0.2, temperature=0.25) == kept(logits, 0.2)


@pytest.mark.parametrize("num_tokens", [1, 2, 1_000])
def test_equally_typical_tokens_are_kept_together(num_tokens: int) -> None:
    """If all are equally typical, all are kept, for any `typical_p`."""
    for typical_p in (0.0, 1e-9, 0.5, 0.999):
        assert kept([0.25] * num_tokens, typical_p) == set(range(num_tokens))


def test_banned_tokens_stay_banned_and_count_for_nothing() -> None:
    """-inf has no mass and no information, and is never kept."""
    logits = [-INF, *np.log([0.5, 0.24, 0.21, 0.05]), -INF]
    for typical_p, expected in ((1e-6, {2}), (0.5, {1, 2, 3}), (0.999999999, {1, 2, 3, 4}), (1.0, {1, 2, 3, 4})):
        assert kept(logits, typical_p) == expected


def test_one_token_left_is_typical() -> None:
    assert kept([-INF, -80.0, -INF], 0.01) == {1}
    assert kept([0.0, 1e6, -1e6], 0.5, temperature=1e-4) == {1}


@pytest.mark.parametrize("logits", [[-INF, -INF], [float("nan"), 1.0], [INF, 1.0]])
def test_a_row_without_numbers_stays_as_it_is(logits: list[float]) -> None:
    """So that sampling reports the error."""
    array = np.array(logits, dtype=np.float32)
    keep_typical(array, temperature=1.0, typical_p=0.5)
    np.testing.assert_array_equal(array, np.array(logits, dtype=np.float32))


@given(
    logits=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=200),
    typical_p=st.floats(0.0, 1.0),
    temperature=st.floats(0.05, 20.0),
)
def test_the_kept_tokens_follow_the_definition(logits: list[float], typical_p: float, temperature: float) -> None:
    """The nearest tokens until their probability reaches p, computed in float64; within rounding at the border."""
    tokens = kept(logits, typical_p, temperature)
    scaled = np.array(logits, dtype=np.float32).astype(np.float64) / temperature
    log_probabilities = scaled - scaled.max() - np.log(np.exp(scaled - scaled.max()).sum())
    probabilities = np.exp(log_probabilities)
    distances = np.abs(-log_probabilities + (probabilities * log_probabilities).sum())
    is_kept = np.isin(np.arange(len(logits)), [*tokens])
    limit = distances[is_kept].max()
    slack = 1e-4 * (1 + np.minimum(distances, 120.0))  # of float32 exponents
    assert tokens
    assert (is_kept | (distances > limit - slack) | (probabilities < 1e-37)).all(), "no nearer token is left out"
    assert probabilities[distances <= limit + slack].sum() >= typical_p - 1e-5, "the probability is reached"
    assert probabilities[distances < limit - 2 * slack].sum() <= typical_p + 1e-5, "no more tokens than necessary"
