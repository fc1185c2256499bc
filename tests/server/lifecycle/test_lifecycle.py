"""Startup, overload, graceful shutdown and failure."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.exit_status import EXIT_ENGINE, EXIT_MODEL
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.async_engine import EngineState
from distilgpt2_api.server.lifecycle.drain import DrainOnSignal, ShutdownState
from distilgpt2_api.server.lifecycle.lifespan import exit_on_failure


def test_probes_and_requests_get_503_while_the_model_loads(open_client: Callable[..., Any]) -> None:
    is_loaded = threading.Event()
    client = open_client(on_load=lambda: is_loaded.wait(20) or None, is_loaded=False)
    try:
        assert client.get("/livez").status_code == 200
        assert client.get("/").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
        assert client.get("/v1/models").json()["data"][0]["max_model_len"] is None
        for answer in (
            client.complete(prompt="a"),
            client.get("/once"),
            client.post("/tokenize", json={"prompt": "a"}),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert answer.headers["x-should-retry"] == "true"
            assert int(answer.headers["retry-after"]) >= 1
            assert int(answer.headers["retry-after-ms"]) >= 1
    finally:
        is_loaded.set()
    client.runner.run(client.scene.engine.wait_loaded())
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.complete(prompt="a").status_code == 200


def test_a_full_queue_is_429_with_retry_after(open_client: Callable[..., Any], build_runner: Any) -> None:
    """A request of two prompts is admitted completely or not at all."""
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner, max_waiting_requests=2)

    async def play() -> Any:
        engine = client.scene.engine
        waiting = asyncio.create_task(client._http.post("/v1/completions", json={"prompt": "a"}))
        while not engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        answer = await client._http.post("/v1/completions", json={"prompt": ["a", "b"]})
        assert engine.num_requests == 1
        assert (await client._http.get("/livez")).status_code == 200
        runner.open_gate()
        assert (await waiting).status_code == 200
        return answer

    answer = client.runner.run(play())
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "overloaded"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-should-retry"] == "true"


def test_more_prompts_than_the_queue_length_are_400(open_client: Callable[..., Any]) -> None:
    """With 429 the client would retry forever."""
    client = open_client(max_waiting_requests=2)
    answer = client.complete(prompt=["a", "b", "c"])
    assert (answer.status_code, answer.headers.get("retry-after")) == (400, None)
    assert "the queue holds 2 prompts" in answer.json()["error"]["message"]
    assert client.complete(prompt=["a", "b"]).status_code == 200


def test_a_drain_completes_requests_and_refuses_new_ones(open_client: Callable[..., Any], build_runner: Any) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> None:
        engine = client.scene.engine
        running = asyncio.create_task(client._http.post("/v1/completions", json={"prompt": "a", "stream": True}))
        while not engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        draining = asyncio.create_task(engine.drain(20))
        await asyncio.sleep(0)
        ready, refused = await client._http.get("/readyz"), await client._http.get("/once")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert (await client._http.post("/tokenize", json={"prompt": "a"})).status_code == 200
        runner.open_gate()
        await draining
        assert (await running).text.endswith("data: [DONE]\n\n")

    client.runner.run(play())


def test_a_request_that_outlasts_the_drain_gets_an_error(open_client: Callable[..., Any], build_runner: Any) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> tuple[Any, Any]:
        body = {"prompt": "a", "max_tokens": 12}
        streamed = asyncio.create_task(client._http.post("/v1/completions", json={**body, "stream": True}))
        whole = asyncio.create_task(client._http.post("/v1/completions", json=body))
        while client.scene.engine.num_requests < 2:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        runner.gate.release(4)
        while len(runner.plans) < 4:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await client.scene.engine.drain(0.01)
        return await streamed, await whole

    streamed, whole = client.runner.run(play())
    assert streamed.status_code == 200
    assert '"code":"draining"' in streamed.text.strip().rpartition("data: ")[2]
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "draining")


class Control:
    """A scripted ServerControl."""

    def __init__(self, *, is_superseded: bool = False) -> None:
        self.is_replacement = False
        self.is_superseded = is_superseded
        self.is_service_ending = False
        self.is_accepting = True
        self.num_connections = 0

    def announce_shutdown(self) -> None:
        self.is_service_ending = not self.is_superseded

    def stop_accepting(self) -> None:
        self.is_accepting = False

    def note_alive(self) -> None:
        raise AssertionError("it already listens, and has a heartbeat")


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that reach the server."""
    numbers: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in previous.items():
        signal.signal(number, handler)


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - nothing has an event for it
            await asyncio.sleep(0)


@asynccontextmanager
async def working(scene: Any, **options: Any) -> AsyncIterator[ShutdownState]:
    """An engine with one running request, and DrainOnSignal installed."""
    shutdown = ShutdownState()
    await scene.engine.start()
    await scene.engine.wait_loaded()
    scene.engine.submit(GenerationRequest(request_id="a", prompt_token_ids=(1,), params=SamplingParams(max_tokens=3)))
    with DrainOnSignal(engine=scene.engine, shutdown=shutdown, max_request_s=60.0, **options):
        yield shutdown
    await scene.engine.stop()


def test_a_signal_reaches_the_server_after_the_drain(build_scene: Any, build_runner: Any, heard: list[int]) -> None:
    """Until then the server listens and answers probes. A repeated SIGTERM changes nothing."""
    scene = build_scene(runner=build_runner(is_gated=True))
    control = Control()

    async def play() -> None:
        async with working(scene, drain_s=20.0, control=control) as shutdown:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda: scene.engine.state is not EngineState.READY)
            assert (shutdown.is_imminent, control.is_service_ending, control.is_accepting) == (True, True, True)
            assert heard == []
            scene.runner.open_gate()
            await wait_until(lambda: heard == [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 2, "the server's handler is restored"

    asyncio.run(play())


def test_a_signal_as_soon_as_the_engine_is_started_drains(
    build_scene: Any, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log says that it serves, even if nothing of the server has run since."""
    scene = build_scene()
    start = scene.engine.start

    async def start_and_get_a_signal() -> None:
        await start()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []

    monkeypatch.setattr(scene.engine, "start", start_and_get_a_signal)

    async def play() -> None:
        async with scene.app.router.lifespan_context(scene.app):
            await wait_until(lambda: heard == [signal.SIGTERM])
            assert scene.engine.state is EngineState.DRAINING

    asyncio.run(play())


@pytest.mark.parametrize(("is_superseded", "num_interrupts"), [(False, 1), (True, 2)])
def test_an_interrupt_during_the_drain_ends_the_process(
    build_scene: Any, build_runner: Any, heard: list[int], is_superseded: bool, num_interrupts: int
) -> None:
    """A reload began the drain of a superseded process, so that the first interrupt ends the service gracefully."""
    scene = build_scene(runner=build_runner(is_gated=True))
    control = Control(is_superseded=is_superseded)
    statuses: list[int] = []

    async def play() -> None:
        async with working(scene, drain_s=20.0, control=control, exit_process=statuses.append) as shutdown:
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda: shutdown.is_imminent)
            for _ in range(num_interrupts):
                assert statuses == []
                os.kill(os.getpid(), signal.SIGINT)
            assert statuses == [0]
            assert heard == []
            scene.runner.open_gate()

    asyncio.run(play())


@pytest.mark.parametrize(("drain_s", "num_connections"), [(0.0, 1), (60.0, 0)])
def test_a_superseded_process_completes_its_requests(
    build_scene: Any, build_runner: Any, heard: list[int], drain_s: float, num_connections: int
) -> None:
    """It accepts no new connections, and serves requests on open ones, which then close. Gunicorn repeats its signal
    meanwhile. Idle connections stay open for `drain_s`.
    """
    scene = build_scene(runner=build_runner(is_gated=True))
    control = Control(is_superseded=True)

    async def play() -> None:
        control.num_connections = num_connections
        async with working(scene, drain_s=drain_s, control=control) as shutdown:
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda: not control.is_accepting)
            os.kill(os.getpid(), signal.SIGTERM)
            assert shutdown.is_imminent
            assert scene.engine.state is EngineState.READY
            assert not control.is_service_ending
            scene.runner.open_gate()
            await wait_until(lambda: heard == [signal.SIGTERM])
            assert scene.engine.num_requests == 0

    asyncio.run(play())


def test_a_superseded_process_drains_when_the_whole_service_ends(
    build_scene: Any, build_runner: Any, heard: list[int]
) -> None:
    """Otherwise the master would kill it with its requests."""
    scene = build_scene(runner=build_runner(is_gated=True))
    control = Control(is_superseded=True)

    async def play() -> None:
        async with working(scene, drain_s=0.05, control=control):
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda: not control.is_accepting)
            control.is_service_ending = True
            await wait_until(lambda: heard == [signal.SIGTERM])
            scene.runner.open_gate()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelFormatError("model.safetensors is truncated"), EXIT_MODEL, "model.safetensors is truncated"),
        (ZeroDivisionError("at line 5"), EXIT_ENGINE, "ZeroDivisionError"),
    ],
)
def test_a_failed_engine_ends_the_process_with_one_clear_line(
    error: Exception, code: int, line: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilgpt2_api.server.lifecycle.lifespan.ERROR_FLUSH_S", 0.0)

    async def play() -> int:
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        exit_on_failure(exited.set_result)(error)
        return await asyncio.wait_for(exited, 5)

    assert asyncio.run(play()) == code
    assert len(caplog.messages) == 1
    assert line in caplog.messages[0]
