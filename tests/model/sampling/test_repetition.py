"""DRY: what continues a repetition is penalised, by its definition and in cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.sampling.repetition import (
    COMPARED_TOKENS,
    SequenceBreakers,
    find_continuations,
    penalise_continuations,
)

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=3 * COMPARED_TOKENS)


def penalties(tokens: Sequence[int], breakers: Sequence[tuple[int, ...]] = (), **options: Any) -> list[float]:
    """DRY's penalties of tokens 0 to 9."""
    logits = np.zeros(10, dtype=np.float32)
    params = SamplingParams(**{"dry_multiplier": 1.0, "dry_base": 2.0, **options})
    penalise_continuations(logits, tokens, params, SequenceBreakers(breakers))
    return [-float(logit) + 0.0 for logit in logits]


def by_definition(
    tokens: Sequence[int], breakers: Sequence[tuple[int, ...]], *, allowed: int, last_n: int
) -> dict[int, int]:
    """For each token that would continue a repetition: the longest, without the tokens of the window before it."""
    window = list(tokens if last_n < 0 else tokens[max(len(tokens) - last_n, 0) :])
    since = len(window)
    for end in range(len(window), 0, -1):
        if any(tuple(window[max(end - len(one), 0) : end]) == one for one in breakers):
            since = len(window) - end
            break
    longest: dict[int, int] = {}
    for end in range(1, len(window)):
        length = 0
        while length < min(end, since) and window[end - 1 - length] == window[-1 - length]:
            length += 1
        if length >= allowed and (window[end],) not in breakers:
            longest[window[end]] = max(longest.get(window[end], 0), length)
    return longest


@settings(deadline=None)
@given(
    tokens=TOKENS,
    breakers=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), max_size=2),
    allowed=st.integers(1, 5),
    last_n=st.integers(-1, 60),
)
def test_penalties_are_their_definition(
    tokens: list[int], breakers: list[tuple[int, ...]], allowed: int, last_n: int
) -> None:
    expected = [0.0] * 10
    for token_id, length in by_definition(tokens, breakers, allowed=allowed, last_n=last_n).items():
        expected[token_id] = min(0.5 * 1.5 ** (length - allowed), 0.5 * np.exp(69))
    found = penalties(
        tokens,
        breakers,
        dry_multiplier=0.5,
        dry_base=1.5,
        dry_allowed_length=allowed,
        dry_penalty_last_n=last_n,
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        ((1, 2, 3, 1, 2), {}, {3: 1}),  # "1 2" came before, followed by 3
        ((1, 2, 3, 4, 1, 2, 3), {}, {4: 2}),
        ((1, 2, 3, 4, 1, 2, 3), {"dry_base": 3.0}, {4: 3}),
        ((1, 2, 3, 4, 1, 2, 3), {"dry_multiplier": 0.25}, {4: 0.5}),
        ((1, 2, 3, 4, 1, 2, 3), {"dry_allowed_length": 3}, {4: 1}),
        ((1, 2, 3, 4, 1, 2, 3), {"dry_allowed_length": 4}, {}),
        ((1, 2, 3, 4, 1, 2, 3), {"dry_penalty_last_n": 6}, {4: 1}),  # without the first token
        ((1, 2, 3, 4, 1, 2, 3), {"dry_penalty_last_n": 0}, {}),
        ((1, 2, 3, 4, 1, 2, 3), {"breakers": [(2,)]}, {}),
        ((1, 2, 3, 4, 1, 2, 3), {"breakers": [(1,)]}, {4: 1}),  # "2 3" since the breaker
        ((1, 2, 3, 4, 1, 2, 3), {"breakers": [(4,)]}, {}),  # the penalised token is a breaker itself
        ((1, 2, 3, 4, 1, 2, 3), {"breakers": [(4, 1)]}, {4: 1}),
        ((1, 2, 3, 4, 1, 2, 3), {"breakers": [(4, 2)]}, {4: 2}),
        ((5, 5, 5, 5), {}, {5: 2}),
        ((1, 2, 7, 1, 2, 8, 1, 2), {}, {7: 1, 8: 1}),
        ((9, 1, 2, 7, 1, 2, 7, 9, 1, 2), {}, {7: 2}),  # of two occurrences the longer counts
        ((1,), {}, {}),
        ((1, 2, 1), {}, {}),
    ],
)
def test_penalties_grow_with_the_repetition(
    tokens: tuple[int, ...], options: dict[str, Any], expected: dict[int, float]
) -> None:
    assert penalties(tokens, **options) == [expected.get(token_id, 0.0) for token_id in range(10)]


@pytest.mark.parametrize("base", [1.0, 1.75, 100.0])
def test_a_long_repetition_overflows_nothing(base: float) -> None:
    """A thousand equal tokens: the penalty is finite, so a row of which nothing else is left still has a token."""
    found = penalties([7] * 1_000, dry_multiplier=100.0, dry_base=base)
    assert np.isfinite(found).all()
    assert found[7] >= 100
    assert (base == 1.0) == (found[7] == 100)


@settings(deadline=None)
@given(tokens=TOKENS, limit=st.integers(1, 3 * COMPARED_TOKENS))
def test_every_earlier_occurrence_of_the_last_token_is_found(tokens: list[int], limit: int) -> None:
    following, lengths = find_continuations(np.array(tokens, dtype=np.int32), limit)
    ends = [end for end in range(len(tokens) - 1, 0, -1) if tokens[end - 1] == tokens[-1]]
    assert following.tolist() == [tokens[end] for end in ends]
    for end, length in zip(ends, lengths.tolist(), strict=True):
        assert tokens[end - length : end] == tokens[len(tokens) - length :]
        assert length in {limit, end} or tokens[end - length - 1] != tokens[-length - 1]
