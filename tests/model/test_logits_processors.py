"""Each logits processor against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.logits_processors import process_logits, repeating_tokens

INF = float("inf")


def process(
    logits: list[float], *, prompt: tuple[int, ...] = (0,), completion: tuple[int, ...] = (), **options: Any
) -> list[float]:
    """What the processors make of a row, with 4 as the end of text."""
    row = PlanRow(
        sequence_id=0,
        token_ids=prompt + completion,
        num_prompt_tokens=len(prompt),
        num_computed_tokens=0,
        num_new_tokens=len(prompt + completion),
        block_ids=(0,),
        params=SamplingParams(**options),
        seed=0,
        is_sampling=True,
    )
    array = np.array(logits, dtype=np.float32)
    process_logits(array, row, eos_token_id=4)
    result: list[float] = array.tolist()
    return result


def test_logit_bias_is_added() -> None:
    """To its token and no other; a token named twice gets both."""
    assert process([1, 2, 3], logit_bias=((0, 0.5), (2, -100.0), (0, 1.0))) == [2.5, 2, -97]


@pytest.mark.parametrize(
    ("completion", "options", "expected"),
    [
        ((), {}, [0, 0, -INF, 0, -INF]),
        ((1, 1), {}, [0, 0, -INF, 0, -INF]),
        ((1, 1, 1), {}, [0, 0, 0, 0, 0]),
        ((), {"ignore_eos": True}, [0, 0, -INF, 0, 0]),
    ],
)
def test_min_tokens_bans_endings(completion: tuple[int, ...], options: dict[str, Any], expected: list[float]) -> None:
    """Until the completion is long enough: stop tokens, and end of text unless it is a token like any other."""
    assert process([0] * 5, completion=completion, min_tokens=3, stop_token_ids=(2,), **options) == expected


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        ((0, 1, 2), 1, {0, 1, 2}),
        ((0, 1, 2, 0), 2, {1}),
        ((0, 1, 0, 2, 0), 2, {1, 2}),
        ((0, 0, 0), 2, {0}),
        ((0, 1, 2, 3, 0, 1), 3, {2}),
        ((0, 1, 2, 1, 1), 3, set()),
        ((0, 1), 3, set()),
        ((0, 1, 2), 3, set()),
        ((5, 5, 5), 3, {5}),
    ],
)
def test_no_repeat_ngram(tokens: tuple[int, ...], size: int, expected: set[int]) -> None:
    """Banned is what followed the last n - 1 tokens before, in prompt or completion."""
    assert set(repeating_tokens(np.array(tokens), size).tolist()) == expected
    logits = process([0.0] * 6, prompt=tokens[:1], completion=tokens[1:], no_repeat_ngram_size=size)
    assert {token_id for token_id, logit in enumerate(logits) if logit == -INF} == expected


@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40), size=st.integers(1, 6))
def test_no_repeat_ngram_is_its_definition(tokens: list[int], size: int) -> None:
    """A token is banned just if appending it would make an n-gram occur twice."""
    ngrams = {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}
    ending = tuple(tokens[len(tokens) - size + 1 :]) if size > 1 else ()
    expected = {token_id for token_id in range(4) if (*ending, token_id) in ngrams}
    assert set(repeating_tokens(np.array(tokens), size).tolist()) == expected


def test_repetition_penalty() -> None:
    """Divides positive and multiplies negative logits of tokens seen anywhere, once however often they were seen."""
    assert process([4, -4, 4, -4, 0], prompt=(0, 1, 1), completion=(0, 4), repetition_penalty=2.0) == [2, -8, 4, -4, 0]


def test_presence_and_frequency_penalties() -> None:
    """Count the completion, not the prompt."""
    assert process([0, 0, 0], prompt=(2, 2), completion=(0, 1, 1), presence_penalty=0.5) == [-0.5, -0.5, 0]
    assert process([0, 0, 0], prompt=(2, 2), completion=(0, 1, 1), frequency_penalty=0.5) == [-0.5, -1, 0]
    assert process([0, 0, 0], prompt=(0,), presence_penalty=1.0, frequency_penalty=1.0) == [0, 0, 0]


def test_processors_act_in_the_promised_order() -> None:
    """Bias before repetition penalty, which is before presence and frequency; a ban stays a ban."""
    options = {"logit_bias": ((0, 2.0),), "repetition_penalty": 2.0, "presence_penalty": 1.0}
    assert process([2, 0, 1], prompt=(2,), completion=(0,), **options) == [1, 0, 0.5]
    assert process([2, 1], prompt=(1,), completion=(0,), no_repeat_ngram_size=1, **options) == [-INF, -INF]


def test_defaults_change_nothing() -> None:
    assert process([1, -2, 3], completion=(1, 2)) == [1, -2, 3]
