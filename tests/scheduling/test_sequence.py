from __future__ import annotations

from typing import Any

import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.scheduling.sequence import Sequence


def make(
    num_prompt_tokens: int, *, num_positions: int = 256, eos_token_ids: tuple[int, ...] = (0,), **params: Any
) -> Sequence:
    return Sequence(
        sequence_id=1,
        prompt_token_ids=tuple(range(num_prompt_tokens)),
        params=SamplingParams(**params),
        seed=5,
        num_positions=num_positions,
        eos_token_ids=eos_token_ids,
    )


def test_a_sequence_ends_with_max_tokens_or_at_the_last_position() -> None:
    assert make(10, max_tokens=5).max_num_tokens == 15
    assert make(250, max_tokens=50).max_num_tokens == 256


@pytest.mark.parametrize(
    ("num_prompt_tokens", "max_tokens", "num_blocks"), [(32, 0, 1), (32, 1, 1), (32, 2, 2), (1, 32, 1), (1, 33, 2)]
)
def test_the_last_sampled_token_needs_no_block(num_prompt_tokens: int, max_tokens: int, num_blocks: int) -> None:
    assert make(num_prompt_tokens, max_tokens=max_tokens).num_blocks_at_most == num_blocks


@pytest.mark.parametrize(("num_prompt_tokens", "num_cacheable"), [(1, 0), (32, 0), (33, 32), (64, 32), (65, 64)])
def test_at_least_one_token_is_left_to_compute(num_prompt_tokens: int, num_cacheable: int) -> None:
    assert make(num_prompt_tokens).num_cacheable_tokens == num_cacheable


def test_scored_tokens_are_computed() -> None:
    sequence = make(100, num_prompt_logprobs=0)
    assert sequence.num_cacheable_tokens == 0
    sequence.num_scored_tokens = 70
    assert sequence.num_cacheable_tokens == 64
    sequence.num_scored_tokens = 99
    assert not sequence.has_unscored_tokens
    assert sequence.num_cacheable_tokens == 96


@pytest.mark.parametrize(
    ("eos_token_ids", "params", "ending"),
    [
        ((0,), {}, {0}),
        ((0, 9), {}, {0, 9}),
        ((), {}, set()),
        ((0, 9), {"ignore_eos": True}, set()),
        ((0,), {"ignore_eos": True, "stop_token_ids": (0, 7)}, {0, 7}),
        ((0,), {"stop_token_ids": (7,)}, {0, 7}),
    ],
)
def test_the_tokens_that_end_a_sequence(
    eos_token_ids: tuple[int, ...], params: dict[str, Any], ending: set[int]
) -> None:
    assert make(1, eos_token_ids=eos_token_ids, **params).ending_tokens.all == ending


def test_a_block_has_the_same_digest_in_every_sequence() -> None:
    long, short = make(128), make(64)
    assert long.digest(1) == short.digest(1)
    assert long.digest(0) != long.digest(1)


def test_equal_blocks_at_different_positions_have_different_digests() -> None:
    sequence = Sequence(
        sequence_id=1, prompt_token_ids=(7,) * 64, params=SamplingParams(), seed=0, num_positions=256, eos_token_ids=()
    )
    assert sequence.digest(0) != sequence.digest(1)


def test_a_row_has_the_tokens_to_compute_and_whether_to_sample() -> None:
    sequence = make(40, max_tokens=2, num_prompt_logprobs=3)
    sequence.block_ids = [4, 2]
    row = sequence.plan_row(30)
    assert (row.num_computed_tokens, row.num_new_tokens, row.is_sampling, row.num_prompt_logprobs) == (0, 30, False, 3)
    assert (row.block_ids, row.seed, row.num_prompt_tokens) == ([4, 2], 5, 40)
    sequence.num_computed_tokens = 30
    assert sequence.plan_row(10).is_sampling


def test_a_row_of_a_full_sequence_does_not_sample() -> None:
    assert not make(40, max_tokens=0).plan_row(40).is_sampling
    assert not make(256).plan_row(256).is_sampling
