"""Each logits processor against cases worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors
from distilgpt2_api.model.sampling.repetition import SequenceBreakers, repeating_tokens

INF = float("inf")


@dataclass
class ReadyMask:
    """A grammar's computed mask."""

    bits: bytes

    def wait(self) -> bytes:
        return self.bits


def process(
    logits: list[float],
    *,
    prompt: tuple[int, ...] = (0,),
    completion: tuple[int, ...] = (),
    mask: bytes | None = None,
    eos_token_ids: tuple[int, ...] = (4,),
    **options: Any,
) -> list[float]:
    """A row of logits after the processors."""
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
        mask=None if mask is None else ReadyMask(mask),
    )
    array = np.array(logits, dtype=np.float32)
    row.params.derive(SequenceBreakers, lambda: SequenceBreakers([]))
    LogitsProcessors(row.params, eos_token_ids=eos_token_ids).apply(array, row)
    result: list[float] = array.tolist()
    return result


def test_logit_bias_is_added() -> None:
    """Only to its token; a token named twice gets both."""
    assert process([1, 2, 3], logit_bias=((0, 0.5), (2, -100.0), (0, 1.0))) == [2.5, 2, -97]


@pytest.mark.parametrize(
    ("completion", "options", "expected"),
    [
        ((), {}, [0, 0, -INF, 0, -INF]),
        ((1, 1), {}, [0, 0, -INF, 0, -INF]),
        ((1, 1, 1), {}, [0, 0, 0, 0, 0]),
        ((), {"ignore_eos": True}, [0, 0, -INF, 0, 0]),
        ((), {"eos_token_ids": (4, 1)}, [0, -INF, -INF, 0, -INF]),
        ((), {"eos_token_ids": (4, 1), "ignore_eos": True}, [0, 0, -INF, 0, 0]),
    ],
)
def test_min_tokens_bans_endings(completion: tuple[int, ...], options: dict[str, Any], expected: list[float]) -> None:
    """Until the completion is long enough: stop tokens, and the end of text unless it is ignored."""
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
    """Bans tokens that followed an earlier occurrence of the last n - 1 tokens, in prompt or completion."""
    assert set(repeating_tokens(np.array(tokens), size).tolist()) == expected
    logits = process([0.0] * 6, prompt=tokens[:1], completion=tokens[1:], no_repeat_ngram_size=size)
    assert {token_id for token_id, logit in enumerate(logits) if logit == -INF} == expected


@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40), size=st.integers(1, 6))
def test_no_repeat_ngram_is_its_definition(tokens: list[int], size: int) -> None:
    """A token is banned if and only if appending it would repeat an n-gram."""
    ngrams = {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}
    ending = tuple(tokens[len(tokens) - size + 1 :]) if size > 1 else ()
    expected = {token_id for token_id in range(4) if (*ending, token_id) in ngrams}
    assert set(repeating_tokens(np.array(tokens), size).tolist()) == expected


@pytest.mark.parametrize(
    ("words", "completion", "banned"),
    [
        (((2,),), (), {2}),
        (((2,), (0,)), (1, 1), {0, 2}),
        (((1, 2),), (1,), {2}),
        (((1, 2),), (3, 1), {2}),
        (((1, 2),), (1, 3), set()),
        (((1, 2),), (), set()),
        (((1, 1),), (1, 1), {1}),
        (((3, 1, 2),), (1,), set()),
        (((3, 1, 2),), (0, 3, 1), {2}),
        (((3, 1, 2), (1, 0), (0, 1, 4), (2, 2)), (3, 1), {0, 2}),
    ],
)
def test_a_bad_word_never_gets_its_last_token(
    words: tuple[tuple[int, ...], ...], completion: tuple[int, ...], banned: set[int]
) -> None:
    """A word of one token is always banned; a longer one if the completion ends with all its other tokens."""
    logits = process([0.0] * 5, completion=completion, bad_words=words)
    assert {token_id for token_id, logit in enumerate(logits) if logit == -INF} == banned


def test_bad_words_begin_in_the_completion() -> None:
    """The end of the prompt does not count."""
    assert process([0, 0, 0], prompt=(3, 1), bad_words=((1, 2), (3, 1, 2))) == [0, 0, 0]
    assert process([0, 0, 0], prompt=(3,), completion=(1,), bad_words=((3, 1, 2),)) == [0, 0, 0]


@given(
    words=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4),
    completion=st.lists(st.integers(0, 2), max_size=12),
)
def test_bad_words_are_their_definition(words: list[tuple[int, ...]], completion: list[int]) -> None:
    """A token is banned if and only if the completion would then end with a bad word."""
    logits = process([0.0] * 3, completion=tuple(completion), bad_words=tuple(words))
    for token_id in range(3):
        after = (*completion, token_id)
        assert (logits[token_id] == -INF) == any(after[-len(word) :] == word for word in words)


def test_only_allowed_tokens_are_left() -> None:
    """The end of text must be listed too. Order and repetition don't matter."""
    assert process([1, 2, 3, 4, 5], allowed_token_ids=(3, 1, 3)) == [-INF, 2, -INF, 4, -INF]
    assert process([1, 2, 3, 4, 5], allowed_token_ids=(4,)) == [-INF, -INF, -INF, -INF, 5]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (b"\xff\xff\xff\xff", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (b"\x05\x01\x00\x00", [1, -INF, 3, -INF, -INF, -INF, -INF, -INF, 9]),
        (b"\x80\xfe\xff\xff", [-INF, -INF, -INF, -INF, -INF, -INF, -INF, 8, -INF]),
        (b"\x00\x00\x00\x00", [-INF] * 9),
    ],
)
def test_a_grammar_allows_what_its_mask_has_bits_for(mask: bytes, expected: list[float]) -> None:
    """Token 0 is the lowest bit of the first byte; bits beyond the vocabulary are ignored."""
    assert process([1, 2, 3, 4, 5, 6, 7, 8, 9], mask=mask) == expected


@given(allowed=st.sets(st.integers(0, 99)), num_covered=st.sampled_from([0, 32, 64, 96, 128]))
def test_tokens_without_a_bit_are_forbidden(allowed: set[int], num_covered: int) -> None:
    """A model's vocabulary may be padded beyond the grammar's."""
    bits = [token_id in allowed for token_id in range(num_covered)]
    mask = np.packbits(np.array(bits, dtype=np.bool_), bitorder="little").tobytes()
    logits = process([0.5] * 100, mask=mask)
    assert {token_id for token_id, logit in enumerate(logits) if logit == 0.5} == {
        token_id for token_id in allowed if token_id < num_covered
    }


def test_repetition_penalty() -> None:
    """Divides positive and multiplies negative logits of tokens seen anywhere, once per token."""
    assert process([4, -4, 4, -4, 0], prompt=(0, 1, 1), completion=(0, 4), repetition_penalty=2.0) == [2, -8, 4, -4, 0]


def test_presence_and_frequency_penalties() -> None:
    """Count the completion, not the prompt."""
    assert process([0, 0, 0], prompt=(2, 2), completion=(0, 1, 1), presence_penalty=0.5) == [-0.5, -0.5, 0]
    assert process([0, 0, 0], prompt=(2, 2), completion=(0, 1, 1), frequency_penalty=0.5) == [-0.5, -1, 0]
    assert process([0, 0, 0], prompt=(0,), presence_penalty=1.0, frequency_penalty=1.0) == [0, 0, 0]


@pytest.mark.parametrize(
    ("last_n", "seen", "counts"),
    [(-1, {0, 1, 2, 3}, [1, 2, 0, 0]), (0, set(), [0, 0, 0, 0]), (2, {1}, [0, 2, 0, 0]), (4, {0, 1, 3}, [1, 2, 0, 0])],
)
def test_penalties_count_a_window(last_n: int, seen: set[int], counts: list[int]) -> None:
    """The last tokens of prompt and completion; presence and frequency count the completion among them."""
    options: dict[str, Any] = {"prompt": (2, 3), "completion": (0, 1, 1), "repeat_last_n": last_n}
    assert process([2.0] * 4, repetition_penalty=2.0, **options) == [
        1.0 if token_id in seen else 2.0 for token_id in range(4)
    ]
    assert process([0.0] * 4, frequency_penalty=0.5, **options) == [-0.5 * count for count in counts]
    assert process([0.0] * 4, presence_penalty=0.5, **options) == [-0.5 * bool(count) for count in counts]


def test_dry_comes_after_the_penalties() -> None:
    """So its penalty is not multiplied by theirs, and a ban stays a ban."""
    options: dict[str, Any] = {"prompt": (1, 2, 3, 1), "completion": (2,), "dry_multiplier": 1.0}
    assert process([4.0] * 4, **options) == [4, 4, 4, 3]
    assert process([4.0] * 4, repetition_penalty=2.0, **options) == [4, 2, 2, 1]
    assert process([4.0] * 4, bad_words=((3,),), **options) == [4, 4, 4, -INF]


def test_processors_act_in_the_promised_order() -> None:
    """Bias before repetition penalty, which is before presence and frequency; a ban stays a ban."""
    options: dict[str, Any] = {"logit_bias": ((0, 2.0),), "repetition_penalty": 2.0, "presence_penalty": 1.0}
    assert process([2, 0, 1], prompt=(2,), completion=(0,), **options) == [1, 0, 0.5]
    assert process([2, 1], prompt=(1,), completion=(0,), no_repeat_ngram_size=1, **options) == [-INF, -INF]
    assert process([2, 0, 1], prompt=(2,), completion=(0,), bad_words=((0,),), **options) == [-INF, 0, 0.5]
    assert process([2, 0, 1], prompt=(2,), completion=(0,), allowed_token_ids=(2,), **options) == [-INF, -INF, 0.5]
    assert process([2, 0, 1], prompt=(2,), completion=(0,), mask=b"\x04\0\0\0", **options) == [-INF, -INF, 0.5]
    assert process([2, 0, 1], allowed_token_ids=(0, 1), bad_words=((1,),), mask=b"\x02\0\0\0") == [-INF] * 3


def test_defaults_change_nothing() -> None:
    assert process([1, -2, 3], completion=(1, 2)) == [1, -2, 3]
