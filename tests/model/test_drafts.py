"""Drafts change the number of steps and no token: compared with the reference and with steps of one token each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import RowResult

VOCAB_SIZE = 131
PROMPT = [(17 * index * index + 5 * index) % VOCAB_SIZE for index in range(28)]
"""With a few drafts after it, it reaches into a second block."""
BLOCKS = (2, 0, 3, 1)
PARAMS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "whole distribution": {},
    "top-k": {"top_k": 20},
    "top-p": {"top_p": 0.9, "temperature": 0.8},
    "min-p": {"min_p": 0.05},
    "typical": {"typical_p": 0.7},
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": 0.7, "temperature": 0.0},
    "repetition penalty": {"repetition_penalty": 1.4, "temperature": 0.0},
    "no n-gram twice": {"no_repeat_ngram_size": 2, "temperature": 0.0},
    "bias": {"logit_bias": ((7, 3.0), (9, -4.0))},
    "bad words": {"bad_words": ((3,), (8, 9), (50, 51)), "temperature": 0.0},
    "endings banned at first": {"min_tokens": 4, "stop_token_ids": (5, 6, 7)},
}


def tokens_of(result: RowResult) -> list[int | None]:
    return [result.token_id, *(one.token_id for one in result.accepted)]


def logprobs_of(result: RowResult) -> list[float]:
    return [one.logprobs.logprob for one in (result, *result.accepted) if one.logprobs is not None]


def run_by_steps(driven: Any, num_tokens: int, **row: Any) -> list[RowResult]:
    """One token per step; the first step also computes the prompt."""
    token_ids, begin, results = list(PROMPT), 0, []
    for _ in range(num_tokens):
        (result,) = driven.step(
            driven.row(token_ids, begin, len(token_ids), BLOCKS, num_prompt_tokens=len(PROMPT), **row)
        )
        begin = len(token_ids)
        token_ids.append(result.token_id)
        results.append(result)
    return results


def fill(driven: Any, blocks: tuple[int, ...] = BLOCKS) -> None:
    """Compute all of the prompt but its last token."""
    driven.step(driven.row(PROMPT, 0, len(PROMPT) - 1, blocks))


@pytest.mark.parametrize("num_right", range(8))
def test_a_step_gains_its_accepted_drafts_and_one_more_token(num_right: int, make_model: Any, drive: Any) -> None:
    """Across the border of a block, too. The next steps overwrite the rejected drafts' cache entries."""
    model = make_model()
    driven = drive(model.path)
    expected = model.reference.greedy(PROMPT, 20)
    drafts = [*expected[:num_right], *((token_id + 1) % VOCAB_SIZE for token_id in expected[num_right:7])]
    fill(driven)

    (result,) = driven.step(driven.row(PROMPT, len(PROMPT) - 1, len(PROMPT), BLOCKS, draft_token_ids=drafts))

    assert tokens_of(result) == expected[: num_right + 1]
    token_ids = [*PROMPT, *expected[: num_right + 1]]
    while len(token_ids) < len(PROMPT) + len(expected):
        (result,) = driven.step(driven.row(token_ids, len(token_ids) - 1, len(token_ids), BLOCKS))
        token_ids.append(result.token_id)
    assert token_ids[len(PROMPT) :] == expected


@pytest.mark.parametrize("options", PARAMS.values(), ids=PARAMS)
def test_every_token_is_the_one_that_a_separate_step_samples(
    options: dict[str, Any], make_model: Any, drive: Any
) -> None:
    """With its own history, position and log-probabilities, beside rows with other drafts and with none."""
    driven = drive(make_model().path, num_blocks=12)
    params = SamplingParams(num_logprobs=3, **options)
    alone = {seed: run_by_steps(driven, 7, params=params, seed=seed) for seed in range(3)}
    tables = [(4 * seed, 4 * seed + 1) for seed in range(3)]
    rows = []
    for seed, num_right in enumerate((6, 2, 0)):
        fill(driven, tables[seed])
        drawn = [result.token_id for result in alone[seed] if result.token_id is not None]
        wrong = (drawn[num_right] + 1) % VOCAB_SIZE
        rows.append(
            driven.row(
                PROMPT,
                len(PROMPT) - 1,
                len(PROMPT),
                tables[seed],
                params=params,
                seed=seed,
                draft_token_ids=[*drawn[:num_right], wrong] if num_right else [],
            )
        )

    results = driven.step(*rows)

    for seed, (num_drawn, result) in enumerate(zip((7, 3, 1), results, strict=True)):
        expected = alone[seed][:num_drawn]
        assert tokens_of(result) == [one.token_id for one in expected]
        assert logprobs_of(result) == pytest.approx([value for one in expected for value in logprobs_of(one)], abs=1e-4)
        assert [len(one.logprobs.top) for one in (result, *result.accepted) if one.logprobs] == [3] * num_drawn


@pytest.mark.parametrize("options", [{}, {"top_k": 12}, {"top_p": 0.85}])
def test_tokens_after_a_draft_follow_the_models_distribution(
    options: dict[str, Any], make_model: Any, drive: Any
) -> None:
    """The first token, and the second where the draft of the first was right: each as the reference's distribution has
    it (chi-square at its 99.9th percentile, with many degrees of freedom).
    """
    model = make_model()
    driven = drive(model.path, num_blocks=100)
    params = SamplingParams(temperature=1.3, **options)
    draft = int(model.reference.logits([5])[-1].argmax())
    firsts: list[int] = []
    seconds: list[int] = []
    for start in range(0, 6_000, 100):
        rows = [
            driven.row([5], 0, 1, [index], params=params, seed=start + index, draft_token_ids=[draft])
            for index in range(100)
        ]
        for result in driven.step(*rows):
            firsts.append(result.token_id)
            seconds += [one.token_id for one in result.accepted]

    assert 300 < len(seconds) == firsts.count(draft)
    assert_follows(firsts, model.reference.logits([5])[-1], params)
    assert_follows(seconds, model.reference.logits([5, draft])[-1], params)


def assert_follows(draws: list[int], logits: Any, params: SamplingParams) -> None:
    scaled = logits / params.temperature
    order = np.argsort(-scaled)[: params.top_k or None]
    masses = np.exp(scaled[order] - scaled[order[0]])
    masses[(np.cumsum(masses) - masses) >= params.top_p * masses.sum()] = 0.0
    expected = masses / masses.sum() * len(draws)
    observed = np.bincount(draws, minlength=VOCAB_SIZE)[order].astype(np.float64)
    assert observed[expected == 0].sum() == 0
    is_rare = expected < 8
    expected = np.append(expected[~is_rare], expected[is_rare].sum())
    observed = np.append(observed[~is_rare], observed[is_rare].sum())
    expected, observed = expected[expected > 0], observed[expected > 0]
    degrees = len(expected) - 1
    assert degrees >= 5
    # Wilson and Hilferty, 1931: the cube root of chi-square over its degrees is nearly normal.
    critical = degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3
    assert ((observed - expected) ** 2 / expected).sum() < critical


def test_drafts_go_through_the_head_in_portions(make_model: Any, drive: Any) -> None:
    """More drafts than the LM head computes at once, and one sequence's drafts in two portions."""
    model = make_model()
    driven = drive(model.path, num_blocks=30)
    prompts = [[index, 2 * index, 7] for index in range(30)]
    expected = [model.reference.greedy(prompt, 6) for prompt in prompts]
    driven.step(*(driven.row(prompt, 0, 2, [index]) for index, prompt in enumerate(prompts)))
    rows = [
        driven.row(prompt, 2, 3, [index], draft_token_ids=drawn[:5])
        for index, (prompt, drawn) in enumerate(zip(prompts, expected, strict=True))
    ]

    assert [tokens_of(result) for result in driven.step(*rows)] == expected


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_rows_see_earlier_drafts_in_other_precisions(precision: str, make_model: Any, drive: Any) -> None:
    """As close to steps of a token each as a prompt in chunks is to one as a whole: caches of fewer bits are read back
    as they were written.
    """
    driven = drive(make_model().path, precision)
    params = SamplingParams(temperature=0.0, num_logprobs=0)
    alone = run_by_steps(driven, 8, params=params)
    fill(driven)
    drafts = [result.token_id for result in alone[:7]]

    (result,) = driven.step(
        driven.row(PROMPT, len(PROMPT) - 1, len(PROMPT), BLOCKS, params=params, draft_token_ids=drafts)
    )

    num_drawn = 1 + len(result.accepted)
    assert num_drawn > 3
    assert logprobs_of(result)[:-1] == pytest.approx(
        [value for one in alone[: num_drawn - 1] for value in logprobs_of(one)], abs=0.5
    )


def test_a_failing_row_ends_its_accepted_drafts(make_model: Any, drive: Any) -> None:
    """Every token but two is banned, and those by the history from the third on: the failure comes where it would."""
    driven = drive(make_model().path)
    params = SamplingParams(temperature=0.0, allowed_token_ids=(3, 5), no_repeat_ngram_size=1)
    alone = run_by_steps(driven, 2, params=params)
    fill(driven)
    drafts = [result.token_id for result in alone]

    (result,) = driven.step(
        driven.row(PROMPT, len(PROMPT) - 1, len(PROMPT), BLOCKS, params=params, draft_token_ids=[*drafts, 3])
    )

    assert tokens_of(result) == [*drafts, None]
    assert result.accepted[-1].error is not None
