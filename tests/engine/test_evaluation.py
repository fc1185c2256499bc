from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from distilgpt2_api.core.plan import RowResult, StepPlan, StepResult, TokenLogprobs
from distilgpt2_api.engine.evaluation import Stream, evaluate, join_documents, sliding_windows, split_documents


def bigram_logprob(before: int, token_id: int) -> float:
    return -0.1 * (1 + (3 * before + token_id) % 7)


class BigramRunner:
    """Scores a token by the one before it, and records the positions that it computes."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.num_computed = 0

    def run(self, plan: StepPlan) -> StepResult:
        (row,) = plan.rows
        assert row.num_computed_tokens in (0, self.num_computed)
        self.steps.append(row.num_new_tokens)
        self.num_computed = row.num_computed_tokens + row.num_new_tokens
        if row.num_prompt_logprobs is None:
            return StepResult(rows=[RowResult()])
        scores = [
            TokenLogprobs(
                token_id=row.token_ids[position + 1],
                logprob=bigram_logprob(row.token_ids[position], row.token_ids[position + 1]),
            )
            for position in range(row.num_computed_tokens, self.num_computed)
        ]
        return StepResult(rows=[RowResult(prompt_logprobs=scores)])


@pytest.fixture
def ticking_clock() -> Callable[[], float]:
    ticks = iter([10.0, 12.0])
    return lambda: next(ticks)


@pytest.mark.parametrize("num_positions", [1, 2, 7, 8, 64])
@pytest.mark.parametrize("num_tokens", [2, 3, 8, 9, 10, 16, 17, 63, 64, 65, 100])
def test_every_token_but_the_first_is_scored_once_with_half_a_context(num_tokens: int, num_positions: int) -> None:
    windows = list(sliding_windows(num_tokens, num_positions))
    scored = [token for window in windows for token in range(window.first_scored, window.end)]
    assert scored == list(range(1, num_tokens))
    assert all(window.end - window.first - 1 <= num_positions for window in windows)
    assert all(window.first_scored - window.first > num_positions // 2 for window in windows[1:])


@pytest.mark.parametrize("max_step_tokens", [1, 5, 1000])
def test_perplexity_and_bits_are_those_of_the_whole_stream(
    max_step_tokens: int, ticking_clock: Callable[[], float]
) -> None:
    """For any split into windows and steps."""
    token_ids = [(7 * index * index + 3) % 50 for index in range(101)]
    nats = -sum(bigram_logprob(before, token) for before, token in itertools.pairwise(token_ids))
    runner = BigramRunner()
    progress: list[int] = []

    result = evaluate(
        runner.run,
        Stream(token_ids=token_ids, num_bytes=300),
        num_positions=16,
        max_step_tokens=max_step_tokens,
        on_scored=progress.append,
        clock=ticking_clock,
    )

    assert result.num_tokens == sum(progress) == 100
    assert result.perplexity == pytest.approx(math.exp(nats / 100))
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / 300)
    assert result.tokens_per_s == 50
    assert max(runner.steps) <= max_step_tokens


def test_documents_are_one_stream_with_ends_of_text_around_them() -> None:
    documents = split_documents("One.\n<|endoftext|>\n\nTwo é.\n<|endoftext|>\n", ["<|endoftext|>"])
    assert documents == ["One.", "Two é."]
    stream = join_documents(documents, lambda texts: [[len(text)] for text in texts], 0)
    assert stream.token_ids == [0, 4, 0, 6, 0]
    assert stream.num_bytes == 4 + 7


def test_a_model_without_an_end_of_text_gets_only_the_documents() -> None:
    stream = join_documents(["a", "b"], lambda texts: [[1], [2]], None)
    assert stream.token_ids == [1, 2]


def test_an_extremely_unlikely_text_has_a_finite_perplexity() -> None:
    """Like a score: a long evaluation must not end with an overflow."""

    def run(plan: StepPlan) -> StepResult:
        (row,) = plan.rows
        scores = [TokenLogprobs(token_id=token_id, logprob=-1000.0) for token_id in row.token_ids[1:]]
        return StepResult(rows=[RowResult(prompt_logprobs=scores)])

    result = evaluate(
        run,
        Stream(token_ids=[1, 2, 3], num_bytes=3),
        num_positions=16,
        max_step_tokens=16,
        on_scored=lambda num_tokens: None,
    )

    assert result.perplexity == pytest.approx(math.exp(700))
    assert result.bits_per_byte == pytest.approx(2000 / math.log(2) / 3)
