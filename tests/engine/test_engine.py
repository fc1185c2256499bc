"""The engine's steps with a scripted runner: their output, and that nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import run_request

EngineBuilder = Callable[..., Engine]
RequestBuilder = Callable[..., GenerationRequest]


def text_of(deltas: list[SequenceDelta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def test_a_request_streams_its_text_and_ends_at_the_end_of_text(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(script=b"hello"), build_request("ab")))

    assert [delta.text for delta in deltas] == ["h", "e", "l", "l", "o", ""]
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * 5
    last = deltas[-1]
    assert (last.finish_reason, last.num_prompt_tokens, last.num_completion_tokens) == (FinishReason.STOP, 2, 6)


def test_the_stop_token_is_reported_only_if_requested(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    by_caller = list(run_request(build_engine(), build_request(stop_token_ids=(ord("o"),))))
    by_model = list(run_request(build_engine(), build_request()))

    assert (text_of(by_caller), by_caller[-1].stop) == ("hell", ord("o"))
    assert (text_of(by_model), by_model[-1].stop) == ("hello world", None)


def test_max_tokens_ends_with_length(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    deltas = list(run_request(build_engine(), build_request(max_tokens=3)))

    assert text_of(deltas) == "hel"
    assert deltas[-1].finish_reason is FinishReason.LENGTH


def test_without_streaming_there_is_one_delta_per_sequence(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(), build_request(num_sequences=3, is_streamed=False)))

    assert sorted(delta.index for delta in deltas) == [0, 1, 2]
    assert {delta.text for delta in deltas} == {"hello world"}


@pytest.mark.parametrize(("is_included", "shown"), [(False, "hel"), (True, "hello w")])
def test_a_stop_sequence_split_over_tokens_never_leaks(
    build_engine: EngineBuilder, build_request: RequestBuilder, is_included: bool, shown: str
) -> None:
    request = build_request(stop=("lo w",), include_stop_str_in_output=is_included)

    deltas = list(run_request(build_engine(), request))

    assert text_of(deltas) == shown
    assert (deltas[-1].finish_reason, deltas[-1].stop) == (FinishReason.STOP, "lo w")
    assert all("lo" not in delta.text for delta in deltas[:-1])


def test_text_held_back_for_a_stop_sequence_is_delivered_at_the_end(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(script=b"hell"), build_request(stop=("hello",))))

    assert [delta.text for delta in deltas] == ["", "", "", "", "hell"]


def test_a_stop_sequence_on_the_last_token_wins_over_length(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(), build_request(stop=("el",), max_tokens=3)))

    assert text_of(deltas) == "h"
    assert deltas[-1].finish_reason is FinishReason.STOP


def test_a_stream_has_only_whole_characters(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    deltas = list(run_request(build_engine(script="aé€😀".encode()), build_request()))

    assert [delta.text for delta in deltas if delta.text] == ["a", "é", "€", "😀"]


def test_a_completion_cut_inside_a_character_ends_with_a_replacement(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(script="a€".encode()), build_request(max_tokens=3)))

    assert text_of(deltas) == "a\ufffd"


def test_every_token_has_its_log_probability_even_if_its_text_is_held_back(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    deltas = list(run_request(build_engine(script="é!".encode()), build_request(num_logprobs=0)))

    assert [[entry.token_id for entry in delta.logprobs] for delta in deltas] == [[0xC3], [0xA9], [0x21], [256]]
    assert all(len(delta.token_ids) == len(delta.logprobs) for delta in deltas)


def test_abort_frees_every_block_and_can_be_repeated(
    build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    engine = build_engine(num_blocks=64)
    engine.add(build_request("x" * 100, num_sequences=2, request_id="long"), submitted_s=0.0)
    engine.step()
    assert engine.num_free_blocks < 64

    last = engine.abort("long")

    assert [delta.finish_reason for delta in last] == [FinishReason.ABORT, FinishReason.ABORT]
    assert engine.num_free_blocks == 64
    assert not engine.has_work
    assert engine.abort("long") == []
    assert [finished.finish_reason for finished in observer.finished] == [FinishReason.ABORT] * 2


def test_closing_the_iterator_aborts(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    engine = build_engine()
    deltas = run_request(engine, build_request())
    next(deltas)

    deltas.close()  # type: ignore[attr-defined]  # a generator, by its Iterator face

    assert not engine.has_work
    assert engine.num_free_blocks == 64


def test_a_deadline_aborts_only_its_request(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    engine = build_engine(script=b"x" * 50)
    engine.add(build_request(request_id="late", deadline_s=20.0), submitted_s=0.0)
    engine.add(build_request(request_id="patient"), submitted_s=0.0)
    reasons = {}
    while engine.has_work:
        for request_id, deltas in engine.step().deltas.items():
            reasons[request_id] = deltas[-1].finish_reason

    assert reasons == {"late": FinishReason.ABORT, "patient": FinishReason.STOP}


def test_timings_and_usage_reach_the_observer(
    build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    list(run_request(build_engine(script=b"abc"), build_request("prompt")))

    (finished,) = observer.finished
    assert (finished.num_prompt_tokens, finished.num_completion_tokens) == (6, 4)
    assert finished.timings.ttft_s is not None
    assert sum(step.num_sampled_tokens for step in observer.steps) == 4
    assert observer.steps[0].schedule.num_tokens == 6
    assert observer.steps[-1].schedule.num_running == 0


def test_the_latencies_of_all_steps_are_the_times_between_all_tokens(
    build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    """Observed once per step instead of once per token, and exact."""
    engine = build_engine(script=b"abcdef")
    engine.add(build_request("first", request_id="1", max_tokens=5), submitted_s=0.0)
    engine.step()
    engine.add(build_request("second", request_id="2"), submitted_s=1.0)
    while engine.has_work:
        engine.step()

    gaps_s = sum(step.inter_step_s * step.num_itl_samples for step in observer.steps)
    decode_s = sum(finished.timings.total_s - finished.timings.ttft_s for finished in observer.finished)
    assert gaps_s == pytest.approx(decode_s)
    assert sum(step.num_itl_samples for step in observer.steps) == 4 + 6


def test_accepted_drafts_have_a_delta_each_and_no_latency(
    build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    """One delta each, as without drafts. The latencies of all steps still add up to the times between tokens."""
    engine = build_engine(script=b"abc" * 10, max_draft_tokens=15)
    deltas = list(run_request(engine, build_request(num_logprobs=0)))

    assert [delta.text for delta in deltas[:-1]] == list("abc" * 10)
    assert [(delta.num_completion_tokens, len(delta.logprobs)) for delta in deltas] == [(n, 1) for n in range(1, 32)]
    (finished,) = observer.finished
    steps = observer.steps
    assert finished.num_completion_tokens == sum(step.num_sampled_tokens for step in steps) == 31
    assert len(steps) < 20
    num_accepted = sum(step.num_accepted_tokens for step in steps)
    assert len(steps) + num_accepted == 31
    assert num_accepted < sum(step.schedule.num_draft_tokens for step in steps)
    assert sum(step.num_same_step_tokens for step in steps) == num_accepted
    gaps_s = sum(step.inter_step_s * (step.num_itl_samples - step.num_same_step_tokens) for step in steps)
    assert gaps_s == pytest.approx(finished.timings.total_s - finished.timings.ttft_s)


@pytest.mark.parametrize("num_kept", range(1, 30))
def test_a_stop_sequence_among_the_tokens_of_one_step_ends_the_text_there(
    num_kept: int, build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    """It is found across tokens and steps. Tokens sampled behind it are not counted."""
    script = bytearray(b"abc" * 11)
    script[num_kept : num_kept + 2] = b"xy"
    engine = build_engine(script=bytes(script), max_draft_tokens=15)
    prompt = "abcxyabc " + bytes(script[: num_kept + 3]).decode() + " "
    deltas = list(run_request(engine, build_request(prompt, stop=("xy",))))

    assert "".join(delta.text for delta in deltas) == bytes(script[:num_kept]).decode()
    assert deltas[-1].num_completion_tokens == num_kept + 2
    assert deltas[-1].stop == "xy"
    assert sum(step.num_sampled_tokens for step in observer.steps) == num_kept + 2
    assert engine.num_free_blocks == 64


def test_a_request_that_is_not_streamed_has_one_delta_with_drafts_too(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    engine = build_engine(script=b"abc" * 10, max_draft_tokens=15)
    (delta,) = run_request(engine, build_request(is_streamed=False, num_logprobs=0))

    assert delta.text == "abc" * 10
    assert len(delta.token_ids) == len(delta.logprobs) == delta.num_completion_tokens == 31


def test_a_step_reports_hits_of_the_prefix_cache(
    build_engine: EngineBuilder, build_request: RequestBuilder, observer: Any
) -> None:
    engine = build_engine()
    for request_id in ("1", "2"):
        list(run_request(engine, build_request("x" * 40, request_id=request_id)))

    found = [(s.schedule.num_prefix_queried_tokens, s.schedule.num_prefix_hit_tokens) for s in observer.steps]
    assert [pair for pair in found if pair != (0, 0)] == [(40, 0), (40, 32)]


def test_a_request_starts_once(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    engine = build_engine()
    engine.add(build_request(request_id="one"), submitted_s=0.0)
    started = []
    while engine.has_work:
        started += engine.step().started

    assert started == ["one"]


def test_requests_start_by_priority_then_arrival(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    """All sequences of a request before the first of the next."""
    engine = build_engine(max_num_sequences=1)
    for name, priority in (("a", 2), ("b", 0), ("c", -1), ("d", 0), ("e", 2)):
        engine.add(build_request(request_id=name, priority=priority, num_sequences=2), submitted_s=0.0)
    finished = []
    while engine.has_work:
        finished += [name for name, deltas in engine.step().deltas.items() if deltas[0].finish_reason]

    assert finished == list("ccbbddaaee")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": [260]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "x" * 256}, "prompt"),
        ({"max_tokens": 253}, "max_tokens"),
        ({"logit_bias": ((260, 1.0),)}, "logit_bias"),
        ({"stop_token_ids": (1, 260)}, "stop_token_ids"),
        ({"bad_words": ((1, 2), (3, 260))}, "bad_words"),
        ({"bad_words": ((-1,),)}, "bad_words"),
        ({"bad_words": ((1,), ())}, "bad_words"),
        ({"allowed_token_ids": (5, 260)}, "allowed_token_ids"),
        ({"allowed_token_ids": (-1, 5)}, "allowed_token_ids"),
    ],
)
def test_an_invalid_parameter_is_refused_by_its_name(
    build_engine: EngineBuilder, build_request: RequestBuilder, changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        list(run_request(build_engine(), build_request(**changes)))

    assert refused.value.param == param


class Instant(float):
    """A point in time that counts comparisons."""

    num_compared = 0

    def __add__(self, other: float) -> Instant:
        return Instant(float(self) + other)

    def __lt__(self, other: float) -> bool:
        Instant.num_compared += 1
        return float(self) < other

    def __le__(self, other: float) -> bool:
        Instant.num_compared += 1
        return float(self) <= other


@pytest.mark.reported("a reading of the engine's loop: each step walked all live requests for their deadlines")
def test_a_step_checks_only_deadlines_that_have_passed(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    engine = build_engine()
    for _ in range(500):
        engine.add(build_request("a", deadline_s=1e6), submitted_s=Instant(0.0))
    engine.step()
    Instant.num_compared = 0
    engine.step()
    assert Instant.num_compared == 1


def test_a_deadline_belongs_to_one_request(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    """Not that of a later request with the same id."""
    engine = build_engine()
    engine.add(build_request(request_id="twice", deadline_s=5.0), submitted_s=0.0)
    engine.abort("twice")
    deltas = list(run_request(engine, build_request(request_id="twice", deadline_s=1e9)))
    assert text_of(deltas) == "hello world"
