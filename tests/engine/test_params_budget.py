"""The bound on the parameters of requests in flight."""

from __future__ import annotations

from typing import Any

import pytest

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.engine.params_budget import ParamsBudget
from distilgpt2_api.model.sampling.repetition import SequenceBreakers

SIX_ENTRIES: list[dict[str, Any]] = [
    {"logit_bias": tuple((token_id, 1.0) for token_id in range(6))},
    {"allowed_token_ids": tuple(range(6))},
    {"stop_token_ids": tuple(range(6))},
    {"bad_words": ((1, 2, 3, 4), (5, 6))},
    {"stop": ("abcd", "ef")},
]


@pytest.mark.reported("a count of what a thousand waiting requests with long lists may keep in memory")
@pytest.mark.parametrize("fields", SIX_ENTRIES, ids=lambda fields: next(iter(fields)))
def test_lists_of_requests_in_flight_are_bounded_together(fields: dict[str, Any]) -> None:
    """Others are admitted again when one has ended."""
    budget = ParamsBudget(max_entries=12)
    first, second, third = (SamplingParams(**fields) for _ in range(3))
    for params in (first, second):
        budget.check(params)
        budget.hold(params)
    with pytest.raises(OverloadedError, match="too many stop sequences"):
        budget.check(third)
    budget.check(SamplingParams())
    budget.release(first)
    budget.check(third)


def test_sequence_breakers_count_as_the_tokens_that_they_are() -> None:
    """A breaker such as a space is in most tokens of the vocabulary. Without DRY none are compiled."""
    budget = ParamsBudget(max_entries=14)
    params = [SamplingParams(dry_multiplier=0.8) for _ in range(2)]
    for one in params:
        one.derive(SequenceBreakers, lambda: SequenceBreakers([(token_id,) for token_id in range(5)] + [(7, 8)]))
        budget.check(one)
        budget.hold(one)
    with pytest.raises(OverloadedError, match="sequence breakers"):
        budget.check(SamplingParams(stop=("a",)))


def test_parameters_that_requests_share_count_once() -> None:
    budget = ParamsBudget(max_entries=12)
    shared = SamplingParams(stop=("abcdef",))
    for _ in range(100):
        budget.check(shared)
        budget.hold(shared)
    other = SamplingParams(stop=("ghijkl",))
    budget.check(other)
    budget.hold(other)
    for _ in range(99):
        budget.release(shared)
    with pytest.raises(OverloadedError):
        budget.check(SamplingParams(stop=("m",)))
    budget.release(shared)
    budget.check(SamplingParams(stop=("m",)))


def test_a_single_request_is_always_admitted() -> None:
    ParamsBudget(max_entries=12).check(SamplingParams(stop=("a" * 100,)))
