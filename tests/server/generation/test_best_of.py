"""`best_of`: more sequences are sampled than the answer has, and the best are kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.server.generation.best_of import BestOf, mean_logprob
from distilgpt2_api.server.generation.generation import Generation, PromptDeltas


def delta(index: int, *logprobs: float) -> SequenceDelta:
    return SequenceDelta(
        index=index,
        text=f"text {index}",
        logprobs=tuple(TokenLogprobs(token_id=1, logprob=logprob) for logprob in logprobs),
        finish_reason=FinishReason.LENGTH,
        num_completion_tokens=len(logprobs),
    )


def test_the_highest_mean_per_token_is_kept_whatever_the_length() -> None:
    """A long likely completion beats a short one whose sum is higher; among equals the earlier sequence wins."""
    best_of = BestOf(num_sequences=4, num_kept=2)
    assert best_of.choose(0, (delta(2, -1.0), delta(0, -0.5, -0.5, -0.5, -0.5))) == ()
    kept = best_of.choose(0, (delta(3, -0.6), delta(1, -0.6, -0.6)))
    assert [(one.index, one.text) for one in kept] == [(0, "text 0"), (1, "text 1")]


def test_each_prompt_chooses_for_itself_when_its_last_sequence_ends() -> None:
    best_of = BestOf(num_sequences=2, num_kept=1)
    ended = [(1, delta(0, -1.0)), (0, delta(1, -1.0)), (1, delta(1, -0.5)), (0, delta(0, -2.0))]
    kept = [(prompt_index, best_of.choose(prompt_index, (one,))) for prompt_index, one in ended]
    texts = [(prompt_index, one.text) for prompt_index, deltas in kept for one in deltas]
    assert texts == [(1, "text 1"), (0, "text 1")]


def test_no_choice_keeps_the_sequences_as_they_come() -> None:
    deltas = (delta(1, -1.0),)
    assert BestOf(num_sequences=2, num_kept=2).choose(0, deltas) is deltas


def test_cached_tokens_are_the_first_sequences(open_client: Callable[..., Any]) -> None:
    """The others find the blocks in the cache that the first has just computed; they do not count."""
    client = open_client()
    prompt = "a prompt of two whole blocks, and some more"
    usage = [client.complete(prompt=prompt, best_of=3, max_tokens=2).json()["usage"] for _ in range(2)]
    assert [one["prompt_tokens_details"]["cached_tokens"] for one in usage] == [0, 32]


def test_no_token_is_a_mean_of_zero() -> None:
    assert mean_logprob(delta(0)) == 0.0


def test_what_the_generation_raises_is_raised(open_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_generation: Generation) -> AsyncGenerator[list[PromptDeltas]]:
        yield [(0, (delta(0, -1.0),))]
        raise ZeroDivisionError

    monkeypatch.setattr(Generation, "updates", fail)
    answer = open_client().complete(prompt="once", best_of=2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


def test_a_client_that_hangs_up_aborts_all_sequences(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Callable[..., Any]
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    hang_up(client, "/v1/completions", prompt="once", best_of=2)


def test_a_request_gets_its_n_best_and_usage_counts_all(open_client: Callable[..., Any], build_runner: Any) -> None:
    """Each sequence repeats one byte, and lower bytes are likelier."""

    class Uneven(build_runner):  # type: ignore[misc]  # a fixture's value has no type
        def draw(self, row: Any) -> Any:
            self.script = bytes([ord("d") - row.sequence_id % 4]) * 3
            return super().draw(row)

    client = open_client(runner=Uneven())
    body = client.complete(prompt="once", best_of=4, n=2, max_tokens=3).json()
    choices = [(choice["index"], choice["text"], choice["logprobs"]) for choice in body["choices"]]
    assert choices == [(0, "aaa", None), (1, "bbb", None)]
    assert body["usage"]["prompt_tokens"] == 4
    assert body["usage"]["completion_tokens"] == 12
    with_logprobs = client.complete(prompt="once", best_of=2, max_tokens=3, logprobs=0).json()["choices"]
    assert len(with_logprobs) == 1
    assert with_logprobs[0]["logprobs"]["tokens"] == list(with_logprobs[0]["text"])
