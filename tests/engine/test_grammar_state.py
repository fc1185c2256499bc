"""Grammars in the engine's steps, with a runner that obeys masks: how sequences end, and that failures are isolated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distilgpt2_api.core.errors import GenerationError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import run_request

EngineBuilder = Callable[..., Engine]
RequestBuilder = Callable[..., GenerationRequest]
END_OF_TEXT = 256


def regex(source: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, source)


@pytest.fixture
def masked(build_runner: Callable[..., Any]) -> Callable[..., Any]:
    """A scripted runner that obeys masks: if one forbids the script's token, it samples the largest allowed one."""

    def build(script: bytes = b"", **options: Any) -> Any:
        runner = build_runner(script=script, **options)
        wish = runner.draw

        def draw(row: PlanRow) -> RowResult:
            result: RowResult = wish(row)
            if row.mask is not None:
                try:
                    allowed = int.from_bytes(row.mask.wait(), "little")
                except GenerationError as error:
                    return RowResult(error=str(error))
                if result.token_id is not None and not allowed >> result.token_id & 1:
                    result.token_id = allowed.bit_length() - 1
            return result

        runner.draw = draw
        return runner

    return build


@pytest.fixture
def guided(build_engine: EngineBuilder, masked: Callable[..., Any]) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def build(script: bytes = b"", **options: Any) -> Engine:
        engines.append(build_engine(masked(script), **options))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


def text_of(deltas: list[SequenceDelta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def complete_all(engine: Engine, requests: list[GenerationRequest]) -> dict[str, list[SequenceDelta]]:
    for request in requests:
        engine.add(request, submitted_s=0.0)
    deltas: dict[str, list[SequenceDelta]] = {}
    while engine.has_work:
        for request_id, gained in engine.step().deltas.items():
            deltas.setdefault(request_id, []).extend(gained)
    return deltas


def test_a_complete_grammar_ends_the_sequence_with_stop_and_its_last_token_is_in_the_text(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    deltas = list(run_request(guided(), build_request(grammar=regex("[0-9]{3}"))))

    assert [delta.text for delta in deltas] == ["9", "9", "9"]
    last = deltas[-1]
    assert (last.finish_reason, last.stop, last.num_completion_tokens) == (FinishReason.STOP, None, 3)


def test_the_end_of_text_ends_it_if_the_grammar_may_end_and_is_not_in_the_text(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    """The script ends after one letter, but the grammar requires three."""
    deltas = list(run_request(guided(b"a"), build_request(grammar=regex("[a-c]{3,9}"))))

    assert text_of(deltas) == "acc"
    assert deltas[-1].finish_reason is FinishReason.STOP


def test_ignoring_the_end_of_text_continues_as_long_as_the_grammar_can(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    deltas = list(run_request(guided(b"a"), build_request(grammar=regex("[a-c]{3,9}"), ignore_eos=True)))

    assert text_of(deltas) == "accccccccc"[:9]
    assert deltas[-1].finish_reason is FinishReason.STOP


def test_max_tokens_cuts_a_grammar_with_length(guided: Callable[..., Engine], build_request: RequestBuilder) -> None:
    deltas = list(run_request(guided(), build_request(grammar=regex("[0-9]{9}"), max_tokens=4)))

    assert deltas[-1].finish_reason is FinishReason.LENGTH


def test_complete_on_the_last_token_is_stop_not_length(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    deltas = list(run_request(guided(), build_request(grammar=regex("[0-9]{4}"), max_tokens=4)))

    assert deltas[-1].finish_reason is FinishReason.STOP


def test_a_stop_sequence_ends_a_guided_text_too(guided: Callable[..., Engine], build_request: RequestBuilder) -> None:
    deltas = list(run_request(guided(b"abcabc"), build_request(grammar=regex("[a-c]{6}"), stop=("ca",))))

    assert (text_of(deltas), deltas[-1].finish_reason, deltas[-1].stop) == ("ab", FinishReason.STOP, "ca")


def test_each_sequence_of_a_request_has_its_own_guide(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    engine = guided(b"abc")

    deltas = list(run_request(engine, build_request(grammar=regex("abc|xyz"), num_sequences=3, is_streamed=False)))

    assert sorted((delta.index, delta.text) for delta in deltas) == [(0, "abc"), (1, "abc"), (2, "abc")]


def test_a_token_outside_the_grammar_fails_only_its_sequence(
    build_engine: EngineBuilder, build_runner: Callable[..., Any], build_request: RequestBuilder
) -> None:
    """As from a sampler that ignores masks."""
    engine = build_engine(build_runner(script=b"ab!"))
    requests = [
        build_request(request_id="guided", grammar=regex("[a-c]{6}")),
        build_request(request_id="free"),
    ]

    deltas = complete_all(engine, requests)
    engine.close()

    assert deltas["guided"][-1].finish_reason is FinishReason.ERROR
    assert "can't follow its grammar" in (deltas["guided"][-1].error or "")
    assert (text_of(deltas["free"]), deltas["free"][-1].finish_reason) == ("ab!", FinishReason.STOP)


def test_a_guide_without_a_mask_fails_only_its_sequence(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    """For example one that becomes too complex midway, or was not checked."""
    requests = [
        build_request(request_id="guided", grammar=regex("(unclosed")),
        build_request(request_id="also guided", grammar=regex("[a-z]{40}")),
    ]

    deltas = complete_all(guided(b"lorem ipsum dolor sit amet" * 2), requests)

    assert deltas["guided"][-1].finish_reason is FinishReason.ERROR
    assert deltas["also guided"][-1].finish_reason is FinishReason.STOP


def test_only_rows_that_sample_with_a_grammar_have_masks(
    guided: Callable[..., Engine], build_request: RequestBuilder
) -> None:
    """Chunks of a prefill sample nothing."""
    engine = guided(max_step_tokens=32)
    complete_all(
        engine,
        [
            build_request("x" * 70, request_id="guided", grammar=regex("[0-9]{2}")),
            build_request("y", request_id="free", max_tokens=2),
        ],
    )

    rows = [row for plan in engine._runner.plans for row in plan.rows]  # type: ignore[attr-defined]  # a fake's own
    assert {row.mask is not None for row in rows if row.params.grammar and row.is_sampling} == {True}
    assert {row.mask for row in rows if not (row.params.grammar and row.is_sampling)} == {None}


def test_preempted_sequences_continue_where_they_were(
    guided: Callable[..., Engine], build_request: RequestBuilder, observer: Any
) -> None:
    engine = guided(num_blocks=6, max_num_sequences=8)
    requests = [
        build_request("x" * 20, request_id=str(index), grammar=regex("(0123456789){7}"), max_tokens=80)
        for index in range(4)
    ]

    deltas = complete_all(engine, requests)

    assert sum(step.schedule.num_preempted for step in observer.steps) > 0
    assert {text_of(gained) for gained in deltas.values()} == {"0123456789" * 7}


def test_guides_are_removed_with_their_sequences(guided: Callable[..., Engine], build_request: RequestBuilder) -> None:
    """After the end, an abort or a refusal."""
    engine = guided()
    complete_all(engine, [build_request(grammar=regex("[0-9]{3}"))])
    engine.add(build_request(request_id="left", grammar=regex("[0-9]+"), num_sequences=2), submitted_s=0.0)
    engine.step()
    engine.abort("left")

    assert not engine._grammar_state._guides


def test_closing_ends_the_mask_thread(
    build_engine: EngineBuilder, masked: Callable[..., Any], build_request: RequestBuilder
) -> None:
    engine = build_engine(masked())
    list(run_request(engine, build_request(grammar=regex("[0-9]"))))
    assert any(thread.name.startswith("masks") for thread in threading.enumerate())

    engine.close()

    assert not any(thread.name.startswith("masks") for thread in threading.enumerate())


def test_an_engine_without_grammars_starts_no_thread_or_process(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    engine = build_engine()
    list(run_request(engine, build_request()))

    assert engine._grammar_state._thread is None
    assert engine.grammars._library is None
