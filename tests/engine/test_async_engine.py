"""The engine thread and its callbacks, with a fake runner and a real event loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from distilgpt2_api.core.caller import Caller, CallerLimits
from distilgpt2_api.core.errors import (
    DrainingError,
    EngineFailedError,
    EngineHungError,
    InvalidRequestError,
    ModelFormatError,
    NotReadyError,
    OverloadedError,
)
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.async_engine import AsyncEngine, EngineState
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.request_stream import RequestStream
from distilgpt2_api.engine.validation import CompiledParams
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors
from distilgpt2_api.scheduling.sequence import EndingTokens
from distilgpt2_api.text.detokenization.stop_matcher import StopAutomaton

EngineBuilder = Callable[..., Engine]
RequestBuilder = Callable[..., GenerationRequest]
Starter = Callable[..., Any]


@asynccontextmanager
async def running(
    load: Callable[[], Engine], *, max_waiting_requests: int = 8, max_waiting_tokens: int = 10_000, **options: Any
) -> AsyncIterator[AsyncEngine]:
    admission = Admission(max_waiting_requests=max_waiting_requests, max_waiting_tokens=max_waiting_tokens)
    engine = AsyncEngine(load, admission=admission, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def read(stream: RequestStream) -> str:
    return "".join([delta.text async for deltas in stream for delta in deltas])


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(bounded())


def test_many_requests_at_once_each_get_their_own_text(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    async def scenario() -> None:
        async with running(build_engine, max_waiting_requests=100) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(build_request(num_sequences=1 + index % 2)) for index in range(40)]
            texts = await asyncio.gather(*map(read, streams))
            assert [len(text) for text in texts] == [11, 22] * 20
            assert engine.num_requests == 0

    run(scenario)


def test_nothing_is_served_before_the_model_is_loaded(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    gate = threading.Event()

    def load() -> Engine:
        gate.wait(10)
        return build_engine()

    async def scenario() -> None:
        streams: list[RequestStream] = []

        def ask() -> None:
            streams.append(engine.submit(build_request()))

        async with running(load, on_ready=ask) as engine:
            assert engine.state.value == "loading"
            assert engine.is_healthy
            with pytest.raises(NotReadyError):
                engine.submit(build_request())
            assert not streams
            gate.set()
            await engine.wait_loaded()
            assert engine.state.value == "ready"
            assert [await read(stream) for stream in streams] == ["hello world"]

    run(scenario)


def test_a_model_that_cannot_be_loaded_is_reported_and_requests_are_refused(build_request: RequestBuilder) -> None:
    failures: list[Exception] = []

    def load() -> Engine:
        raise ModelFormatError("model.safetensors is truncated")

    async def scenario() -> None:
        async with running(load, on_failure=failures.append) as engine:
            with pytest.raises(EngineFailedError):
                await engine.wait_loaded()
            with pytest.raises(EngineFailedError):
                engine.submit(build_request())
            assert not engine.is_healthy

    run(scenario)
    assert [str(failure) for failure in failures] == ["model.safetensors is truncated"]


@pytest.mark.parametrize("error", [RuntimeError("a kernel broke"), MemoryError()])
@pytest.mark.parametrize(
    "place",
    [
        "_scheduler.add",
        "_scheduler.schedule",
        "_scheduler.update",
        "_outputs.add",
        "_outputs.mark_started",
        "_outputs.of",
        "_grammar_state.open",
        "_grammar_state.begin_masks",
        "_grammar_state.accept",
        "_runner.run",
        "_observer.on_step",
        "_observer.on_sequence_finished",
    ],
)
def test_an_error_anywhere_in_the_loop_fails_the_requests_in_flight_and_is_reported(
    build_engine: EngineBuilder,
    build_request: RequestBuilder,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: Exception,
) -> None:
    """Their streams end, new requests are refused, and the process can exit for its supervisor."""
    failures: list[Exception] = []
    part, method = place.split(".")

    def explode(*arguments: object, **options: object) -> None:
        raise error

    async def scenario() -> None:
        engine = build_engine()
        async with running(lambda: engine, on_failure=failures.append) as service:
            await service.wait_loaded()
            monkeypatch.setattr(getattr(engine, part), method, explode)
            streams = [service.submit(build_request()) for _ in range(3)]
            for stream in streams:
                with pytest.raises(EngineFailedError):
                    await read(stream)
            assert service.state is EngineState.FAILED
            assert not service.is_healthy
            with pytest.raises(EngineFailedError):
                service.submit(build_request())
            assert service.num_requests == 0

    run(scenario)
    assert failures == [error]


def test_an_error_during_delivery_fails_the_requests_in_flight(
    build_engine: EngineBuilder, build_request: RequestBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = []

    async def scenario() -> None:
        async with running(build_engine, on_failure=failures.append) as engine:
            await engine.wait_loaded()
            monkeypatch.setattr(engine._admission, "mark_started", lambda request_id: 1 // 0)
            with pytest.raises(EngineFailedError):
                await read(engine.submit(build_request()))
            assert engine.state is EngineState.FAILED

    run(scenario)
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


def test_a_step_that_hangs_is_detected(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    """Although its thread is blocked. A step that is only slow is no failure."""
    gate = threading.Event()
    failures: list[Exception] = []
    runner = build_runner(on_run=lambda plan: gate.wait(10) and None)

    async def scenario() -> None:
        async with running(lambda: build_engine(runner), on_failure=failures.append, step_timeout_s=0.05) as engine:
            await engine.wait_loaded()
            with pytest.raises(EngineFailedError):
                await read(engine.submit(build_request()))
            assert not engine.is_healthy
            gate.set()

    run(scenario)
    assert [type(failure) for failure in failures] == [EngineHungError]


def test_abort_ends_the_stream_and_frees_the_blocks_while_others_go_on(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    gate = threading.Event()
    engines: list[Engine] = []

    def hold_after_the_third_step(plan: object) -> None:
        if len(runner.plans) == 3:
            gate.wait(10)

    runner = build_runner(on_run=hold_after_the_third_step)

    def load() -> Engine:
        engines.append(build_engine(runner))
        return engines[0]

    async def scenario() -> None:
        async with running(load) as engine:
            await engine.wait_loaded()
            gone, other = engine.submit(build_request()), engine.submit(build_request())
            await anext(gone)
            gone.abort()
            gone.abort()
            gate.set()
            assert [delta async for delta in gone] == []
            assert await read(other) == "hello world"
            assert engine.num_requests == 0
        assert engines[0].num_free_blocks == 64

    run(scenario)


def test_a_slow_reader_gets_one_piece(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    async def scenario() -> None:
        async with running(build_engine) as engine:
            await engine.wait_loaded()
            late, prompt = engine.submit(build_request()), engine.submit(build_request())
            await read(prompt)
            pieces = [deltas async for deltas in late]
            assert len(pieces) <= 2
            assert "".join(delta.text for deltas in pieces for delta in deltas) == "hello world"

    run(scenario)


def test_a_very_slow_reader_gets_parts_and_other_tasks_run_in_between(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    """A large backlog does not block the event loop."""

    async def scenario() -> None:
        script = bytes(range(65, 91)) * 7
        async with running(lambda: build_engine(script=script)) as engine:
            await engine.wait_loaded()
            late = engine.submit(build_request(max_tokens=180))
            while engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0)
            num_turns = 0
            is_over = False

            async def take_turns() -> None:
                nonlocal num_turns
                while not is_over:
                    num_turns += 1
                    await asyncio.sleep(0)

            others = asyncio.create_task(take_turns())
            pieces = [deltas async for deltas in late]
            is_over = True
            await others
            assert [len(deltas) for deltas in pieces] == [64, 64, 52]
            assert "".join(delta.text for deltas in pieces for delta in deltas) == script[:180].decode()
            assert num_turns >= 2

    run(scenario)


def test_the_queue_is_bounded_and_reports_when_to_retry(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    gate = threading.Event()
    runner = build_runner(on_run=lambda plan: gate.wait(10) and None)

    async def scenario() -> None:
        async with running(lambda: build_engine(runner, max_num_sequences=1), max_waiting_requests=2) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(build_request()) for _ in range(2)]
            with pytest.raises(OverloadedError) as refused:
                engine.submit(build_request())
            assert 1 <= refused.value.retry_after_s <= 120
            gate.set()
            assert [await read(stream) for stream in streams] == ["hello world"] * 2
            assert await read(engine.submit(build_request())) == "hello world"

    run(scenario)


def test_drain_finishes_running_requests_and_refuses_new_ones(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    async def scenario() -> None:
        async with running(build_engine) as engine:
            await engine.wait_loaded()
            reading = asyncio.create_task(read(engine.submit(build_request())))
            draining = asyncio.create_task(engine.drain(10.0))
            await asyncio.sleep(0)
            with pytest.raises(DrainingError):
                engine.submit(build_request())
            await draining
            assert await reading == "hello world"

    run(scenario)


def test_drain_fails_requests_after_its_timeout(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    gate = threading.Event()
    runner = build_runner(on_run=lambda plan: gate.wait(10) and None)

    async def scenario() -> None:
        async with running(lambda: build_engine(runner)) as engine:
            await engine.wait_loaded()
            stream = engine.submit(build_request())
            await engine.drain(0.0)
            with pytest.raises(DrainingError):
                await read(stream)
            gate.set()

    run(scenario)


def test_drain_waits_for_work_of_several_requests(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    """Work under `hold_drain` continues although the queue is full and new requests are refused."""

    async def scenario() -> None:
        async with running(build_engine, max_waiting_requests=1) as engine:
            await engine.wait_loaded()
            with engine.hold_drain():
                await read(engine.submit(build_request()))
                draining = asyncio.create_task(engine.drain(10.0))
                await asyncio.sleep(0)
                with pytest.raises(DrainingError):
                    engine.submit(build_request())
                streams = [engine.submit(build_request(), is_continuation=True) for _ in range(3)]
                assert [await read(stream) for stream in streams] == ["hello world"] * 3
                assert not draining.done()
            await draining

    run(scenario)


def test_nothing_continues_after_a_drain_has_timed_out(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    """Not even the next request of work under `hold_drain`, which would get no answer."""

    async def scenario() -> None:
        async with running(build_engine) as engine:
            await engine.wait_loaded()
            with engine.hold_drain():
                await engine.drain(0.0)
                with pytest.raises(DrainingError):
                    engine.submit(build_request(), is_continuation=True)

    run(scenario)


def test_one_request_id_is_one_request(build_engine: EngineBuilder, build_request: RequestBuilder) -> None:
    async def scenario() -> None:
        async with running(build_engine) as engine:
            await engine.wait_loaded()
            stream = engine.submit(build_request(request_id="same"))
            with pytest.raises(InvalidRequestError):
                engine.submit(build_request(request_id="same"))
            await read(stream)
            await read(engine.submit(build_request(request_id="same")))

    run(scenario)


def test_stop_ends_the_thread_and_closes_the_runner(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    runner = build_runner()

    async def scenario() -> None:
        async with running(lambda: build_engine(runner)) as engine:
            await engine.wait_loaded()
            stream = engine.submit(build_request())
            last = [deltas async for deltas in stream][-1][-1]
            assert last.finish_reason is FinishReason.STOP
        assert engine.state is EngineState.STOPPED
        assert runner.is_closed
        assert not any(thread.name == "engine" for thread in threading.enumerate())

    run(scenario)


def test_a_caller_with_less_is_admitted_and_a_stream_of_the_caller_with_most_is_shed(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    """A full queue admits another caller: exactly one stream of the first caller ends with an error."""
    gate = threading.Event()
    runner = build_runner(on_run=lambda plan: gate.wait(10) and None)
    crowd, newcomer = Caller(name="crowd"), Caller(name="newcomer")

    async def scenario() -> None:
        async with running(lambda: build_engine(runner, max_num_sequences=1), max_waiting_requests=3) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(build_request(), caller=crowd) for _ in range(3)]
            welcome = engine.submit(build_request(), caller=newcomer)
            gate.set()
            ends = await asyncio.gather(*map(read, streams), return_exceptions=True)
            assert await read(welcome) == "hello world"
            assert [type(end) for end in ends].count(OverloadedError) == 1
            assert ends.count("hello world") == 2

    run(scenario)


def test_requests_refused_together_end_no_other_request(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    """If the queue refuses them, or one of them is invalid, other requests keep waiting and none of these starts."""
    gate = threading.Event()
    runner = build_runner(on_run=lambda plan: gate.wait(10) and None)
    crowd, newcomer = Caller(name="crowd"), Caller(name="newcomer")

    async def scenario() -> None:
        async with running(lambda: build_engine(runner, max_num_sequences=1), max_waiting_requests=4) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(build_request(), caller=crowd) for _ in range(4)]
            with pytest.raises(OverloadedError):
                engine.submit_all([build_request() for _ in range(3)], caller=newcomer)
            with pytest.raises(InvalidRequestError):
                engine.submit_all([build_request(), build_request(max_tokens=10**6)], caller=newcomer)
            assert engine.num_requests == 4
            gate.set()
            assert await asyncio.gather(*map(read, streams)) == ["hello world"] * 4

    run(scenario)


def test_batch_work_is_not_bounded_by_the_queue_and_has_no_deadline(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    """However much batch work waits, other requests are admitted, and batch work waits without a deadline."""

    async def scenario() -> None:
        async with running(build_engine, max_waiting_requests=1) as engine:
            await engine.wait_loaded()
            batch = Caller(name="alice", limits=CallerLimits(max_requests=1, tokens_per_s=1), is_batch=True)
            streams = [
                engine.submit(build_request(deadline_s=0.0, request_id=f"line {number}"), caller=batch)
                for number in range(20)
            ]
            asked = engine.submit(build_request(request_id="asked"), caller=Caller(name="alice"))
            assert await read(asked) == "hello world"
            assert [await read(stream) for stream in streams] == ["hello world"] * 20

    run(scenario)


def test_batch_work_of_several_requests_counts_against_no_limit(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    async def scenario() -> None:
        async with running(build_engine) as engine:
            await engine.wait_loaded()
            limits = CallerLimits(max_requests=1, tokens_per_s=1, burst_tokens=20)
            batch = Caller(name="alice", limits=limits, is_batch=True)
            with engine.hold_drain(), engine.count_in_flight(batch, 1):
                await read(engine.submit(build_request(request_id="part"), caller=batch, is_continuation=True))
                asked = engine.submit(build_request(request_id="asked"), caller=Caller(name="alice", limits=limits))
            assert await read(asked) == "hello world"

    run(scenario)


@pytest.mark.reported("an attack with a thousand prompts that share sixteen long stop sequences")
def test_parameters_are_compiled_once_and_before_the_engine_thread_gets_them(
    build_engine: EngineBuilder, build_request: RequestBuilder
) -> None:
    """Once for all prompts and sequences that share them."""
    kinds: tuple[type, ...] = (CompiledParams, EndingTokens, LogitsProcessors, StopAutomaton)
    params = SamplingParams(max_tokens=64, stop=("wor",), stop_token_ids=(1, 2), bad_words=((3, 4),))

    def refuse_to_make() -> Any:
        raise AssertionError("it is made already")

    async def scenario() -> None:
        async with running(build_engine, max_waiting_requests=100) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(replace(build_request(num_sequences=4), params=params))]
            made = [params.derive(kind, refuse_to_make) for kind in kinds]
            streams += [engine.submit(replace(build_request(num_sequences=4), params=params)) for _ in range(20)]
            assert set(await asyncio.gather(*map(read, streams))) == {"".join(4 * letter for letter in "hello ")}
            assert [id(params.derive(kind, refuse_to_make)) for kind in kinds] == [*map(id, made)]

    run(scenario)


@pytest.mark.reported("an attack with a thousand prompts in one request, beside a running stream")
def test_many_submissions_at_once_let_steps_pass_between_them(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    """On a clock on which each message takes long."""
    runner = build_runner(is_gated=True)
    ticks = itertools.count()

    async def scenario() -> None:
        async with running(lambda: build_engine(runner), clock=lambda: float(next(ticks))) as engine:
            await engine.wait_loaded()
            streams = [engine.submit(build_request()) for _ in range(5)]
            runner.open_gate()
            await asyncio.gather(*map(read, streams))

    run(scenario)
    assert [len(plan.rows) for plan in runner.plans[:6]] == [1, 2, 3, 4, 5, 5]


@pytest.mark.reported("an attack that held the engine thread for fifty seconds without a step")
def test_a_message_that_hangs_the_engine_thread_is_detected(
    build_engine: EngineBuilder, build_request: RequestBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a step that hangs."""
    gate = threading.Event()
    failures: list[Exception] = []

    def load() -> Engine:
        engine = build_engine()
        monkeypatch.setattr(engine, "add", lambda *_, **__: gate.wait(10))
        return engine

    async def scenario() -> None:
        async with running(load, on_failure=failures.append, step_timeout_s=0.05) as engine:
            await engine.wait_loaded()
            with pytest.raises(EngineFailedError):
                await read(engine.submit(build_request()))
            gate.set()

    run(scenario)
    assert [type(failure) for failure in failures] == [EngineHungError]


def test_long_lists_are_refused_while_others_hold_too_many(
    build_engine: EngineBuilder, build_runner: Any, build_request: RequestBuilder
) -> None:
    """A request releases its lists, however it ends."""
    runner = build_runner(is_gated=True)
    biases = tuple((token_id % 250, 0.0) for token_id in range(600_000))

    async def scenario() -> None:
        async with running(lambda: build_engine(runner)) as engine:
            await engine.wait_loaded()
            first = engine.submit(build_request(logit_bias=biases))
            with pytest.raises(OverloadedError):
                engine.submit(build_request(logit_bias=biases))
            first.abort()
            second = engine.submit(build_request(logit_bias=biases))
            runner.open_gate()
            assert await read(second) == "hello world"
            assert await read(engine.submit(build_request(logit_bias=biases))) == "hello world"

    run(scenario)
