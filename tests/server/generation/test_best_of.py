"""`best_of`: more completions than asked for, and of them the best."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.server.generation.best_of import BestOf, mean_logprob
from distilgpt2_api.server.generation.generation import Generation, PromptDeltas


def delta(index: int, *logprobs: float, num_cached_tokens: int = 0) -> SequenceDelta:
    return SequenceDelta(
        index=index,
        text=f"text {index}",
        logprobs=tuple(TokenLogprobs(token_id=1, logprob=logprob) for logprob in logprobs),
        finish_reason=FinishReason.LENGTH,
        num_completion_tokens=len(logprobs),
        num_cached_tokens=num_cached_tokens,
    )


class Played:
    """A generation that hands over what it was given, and then raises, if it is to."""

    def __init__(self, *hand_overs: list[PromptDeltas], error: Exception | None = None) -> None:
        self._hand_overs = hand_overs
        self._error = error
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    async def hand_overs(self) -> AsyncGenerator[list[PromptDeltas]]:
        for hand_over in self._hand_overs:
            yield hand_over
        if self._error is not None:
            raise self._error


def play(played: Played, *, num_sequences: int, num_kept: int) -> tuple[list[list[PromptDeltas]], list[int]]:
    dropped: list[int] = []
    best_of = BestOf(cast("Generation", played), num_sequences=num_sequences, num_kept=num_kept, on_drop=dropped.append)

    async def collect() -> list[list[PromptDeltas]]:
        return [hand_over async for hand_over in best_of.hand_overs()]

    return asyncio.run(collect()), dropped


def test_the_highest_mean_per_token_is_kept_whatever_the_length() -> None:
    """A long likely completion beats a short one whose sum is higher; among equals the earlier sequence wins."""
    played = Played(
        [(0, (delta(2, -1.0), delta(0, -0.5, -0.5, -0.5, -0.5)))], [(0, (delta(3, -0.6), delta(1, -0.6, -0.6)))]
    )
    [[(prompt_index, kept)]], dropped = play(played, num_sequences=4, num_kept=2)
    assert prompt_index == 0
    assert [(one.index, one.text) for one in kept] == [(0, "text 0"), (1, "text 1")]
    assert sum(dropped) == 2, "tokens drawn in vain are told"


def test_each_prompt_chooses_for_itself_when_its_last_sequence_ends() -> None:
    played = Played(
        [(1, (delta(0, -1.0),)), (0, (delta(1, -1.0),))],
        [(1, (delta(1, -0.5),))],
        [(0, (delta(0, -2.0),))],
    )
    hand_overs, _ = play(played, num_sequences=2, num_kept=1)
    texts = [(prompt_index, kept[0].text) for [(prompt_index, kept)] in hand_overs]
    assert texts == [(1, "text 1"), (0, "text 1")]


def test_cached_tokens_are_the_first_sequences() -> None:
    """The others find in the cache what the first has just computed: that was not there before."""
    played = Played([(0, (delta(0, -1.0, num_cached_tokens=0), delta(1, -0.1, num_cached_tokens=32)))])
    [[(_, kept)]], _ = play(played, num_sequences=2, num_kept=1)
    assert (kept[0].text, kept[0].num_cached_tokens) == ("text 1", 0)


def test_no_token_is_a_mean_of_zero() -> None:
    assert mean_logprob(delta(0)) == 0.0


def test_what_the_generation_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        play(Played([(0, (delta(0, -1.0),))], error=ZeroDivisionError()), num_sequences=2, num_kept=1)


def test_an_abort_reaches_the_generation() -> None:
    played = Played()
    BestOf(cast("Generation", played), num_sequences=2, num_kept=1, on_drop=lambda num: None).abort()
    assert played.is_aborted


def test_a_request_gets_its_n_best_and_pays_for_all(open_client: Callable[..., Any], build_runner: Any) -> None:
    """Each sequence draws one byte more often than the last, and the likelier the lower the byte."""

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
