"""Streams and disconnects, ASGI message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.errors import DeadlineExceededError, GenerationError
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.http.responses.responses import DeferredJsonResponse, EventStream
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

HEADERS = [(b"content-type", b"application/json")]


def post(build_call: Any, client: Any, **body: Any) -> Any:
    content = json.dumps({"prompt": "once", "max_tokens": 50, **body}).encode()
    return build_call(client.scene.app, "/v1/completions", "POST", body=content, headers=HEADERS)


def bodies(sent: list[dict[str, Any]]) -> list[bytes]:
    return [message["body"] for message in sent[1:] if message["body"]]


def test_the_status_waits_for_the_first_token_and_each_step_is_one_write(
    open_client: Callable[..., Any], build_runner: Any, build_call: Any
) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)
    call = post(build_call, client, stream=True, n=2)

    async def play() -> None:
        task = asyncio.create_task(call.run())
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        assert call.sent == [], "nothing is drawn yet"
        for num_steps in (1, 2):
            runner.gate.release()
            await call.wait_for(lambda sent, count=2 * num_steps: b"".join(bodies(sent)).count(b"data: ") == count)
        call.gone.set()
        runner.open_gate()
        await task

    client.runner.run(play())
    headers = dict(call.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache, no-transform"
    assert headers[b"x-accel-buffering"] == b"no"
    assert [piece.count(b"data: ") for piece in bodies(call.sent)[:2]] == [2, 2], "one write for both sequences"
    assert all(piece.endswith(b"\n\n") for piece in bodies(call.sent)), "a write has complete events only"


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("prompt", ["once", ["once", "upon"]])
def test_a_disconnect_frees_every_block(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Any, is_stream: bool, prompt: Any
) -> None:
    """Streamed or not, with one prompt or several. The log and the metrics record it."""
    client = open_client(runner=build_runner(is_gated=True))
    hang_up(client, "/v1/completions", stream=is_stream, prompt=prompt, n=2)
    assert client.complete(prompt="after", max_tokens=1).status_code == 200
    assert client.scene.engines[0].num_free_blocks == 64
    entry = client.scene.log.calls[0].kwargs
    assert entry["is_disconnect"] is True
    assert "distilgpt2_client_disconnects_total 1.0" in client.get("/metrics").text


CHAT = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.reported("a client that disconnected during TGI's POST /generate")
@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("POST /generate", {"inputs": "ab", "parameters": {"details": True}}),
        ("POST /generate", {"inputs": "ab", "parameters": {"best_of": 2, "do_sample": True}}),
        ("POST /", {"inputs": "ab"}),
        ("POST /v1/completions", {"prompt": ["a", "b"], "echo": True, "logprobs": 2}),
        ("POST /v1/completions", {"prompt": "a", "n": 2, "best_of": 3}),
        ("POST /v1/completions", {"prompt": "a", "use_beam_search": True, "n": 2, "temperature": 0}),
        ("POST /v1/chat/completions", CHAT),
        ("POST /v1/score", {"input": ["a" * 100, "b"]}),
        ("GET /once", {}),
    ],
)
def test_nothing_is_written_to_a_disconnected_client(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Any, route: str, body: dict[str, Any]
) -> None:
    """In every route: a disconnect is not an internal error."""
    template = ChatTemplate("{{ messages[0].content }}", origin="test")
    method, path = route.split(" ")
    client = open_client(runner=build_runner(is_gated=True), chat_template=template)
    assert hang_up(client, path, method=method, **body).sent == []
    [entry] = client.scene.log.calls
    assert (entry.args, entry.kwargs["status"], entry.kwargs["is_disconnect"]) == (("request",), 499, True)
    metrics = client.get("/metrics").text
    assert 'status="499"} 1.0' in metrics
    assert 'status="500"' not in metrics
    assert "distilgpt2_client_disconnects_total 1.0" in metrics


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"inputs": "ab", "stream": True}),
        ("/generate_stream", {"inputs": "ab"}),
        ("/v1/completions", {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_a_stream_whose_client_disconnected_has_no_end(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Any, path: str, body: dict[str, Any]
) -> None:
    template = ChatTemplate("{{ messages[0].content }}", origin="test")
    client = open_client(runner=build_runner(is_gated=True), chat_template=template)
    call = hang_up(client, path, **body)
    assert "usage" not in call.text.replace('"usage":null', "")
    assert "[DONE]" not in call.text
    assert "error" not in call.text
    assert all(message.get("more_body", True) for message in call.sent)
    [entry] = client.scene.log.calls
    assert (entry.args, entry.kwargs["is_disconnect"]) == (("request",), True)


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_engine_failure_after_a_disconnect_is_not_sent(build_call: Any, is_stream: bool) -> None:
    async def play() -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def abort() -> None:
            failed.set_exception(GenerationError("no"))

        async def work() -> None:
            await failed

        async def events() -> Any:
            await failed
            yield b""

        response = DeferredJsonResponse(work, bytes, abort=abort)
        stream = EventStream(events, abort=abort, errors=OPENAI_ERRORS)
        record = RequestRecord(request_id="1")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"request_record": record}
            await (stream if is_stream else response)(scope, receive, send)

        call = build_call(app, "/")
        call.gone.set()
        await call.run()
        assert (call.sent, record.is_disconnect, record.error_code) == ([], True, None)

    asyncio.run(play())


def test_an_engine_failure_midway_ends_the_stream_with_an_error_event(
    open_client: Callable[..., Any], build_runner: Any
) -> None:
    def fail(plan: Any) -> None:
        if len(runner.plans) == 4:
            raise ZeroDivisionError

    failures: list[Exception] = []
    runner = build_runner(on_run=fail)
    client = open_client(runner=runner, on_failure=failures.append)
    answer = client.complete(prompt="once", stream=True)
    assert answer.status_code == 200
    events = answer.text.strip().split("\n\n")
    assert "[DONE]" not in answer.text
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert [type(error) for error in failures] == [ZeroDivisionError]
    after = client.complete(prompt="once")
    assert after.status_code == 503
    assert client.get("/livez").status_code == 503
    assert client.get("/readyz").json() == {"status": "failed"}


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_exceeded_deadline_is_504_before_the_first_token(
    open_client: Callable[..., Any], build_runner: Any, is_stream: bool
) -> None:
    """The client is told not to retry."""
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> Any:
        asking = asyncio.create_task(
            client._http.post("/v1/completions", json={"prompt": "a", "timeout_s": 1e-9, "stream": is_stream})
        )
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        runner.open_gate()
        return await asking

    answer = client.runner.run(play())
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"


class StreamScene:
    """An EventStream over events that a test writes."""

    def __init__(self, build_call: Any, events: Any, *, ping_interval_s: float = 15.0) -> None:
        self.is_aborted = False
        response = EventStream(events, abort=self._abort, errors=OPENAI_ERRORS, ping_interval_s=ping_interval_s)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"request_record": RequestRecord(request_id="1")}
            await response(scope, receive, send)

        self.call = build_call(app, "/")
        self.call.has_read_body = True

    def _abort(self) -> None:
        self.is_aborted = True


def test_pings_keep_an_idle_stream_alive(build_call: Any) -> None:
    async def play() -> str:
        done = asyncio.Event()

        async def events() -> Any:
            yield b"data: 1\n\n"
            await done.wait()
            yield b"data: 2\n\n"

        scene = StreamScene(build_call, events, ping_interval_s=0.001)
        task = asyncio.create_task(scene.call.run())
        await scene.call.wait_for(lambda sent: sum(b": ping\n\n" in m.get("body", b"") for m in sent) >= 2)
        done.set()
        await task
        return str(scene.call.text)

    text = asyncio.run(play())
    assert text.startswith("data: 1\n\n: ping\n\n")
    assert text.endswith("data: 2\n\n")


@pytest.mark.reported("a proxy that gave up on a queued stream after 60 s without a byte")
def test_a_queued_stream_gets_its_status_and_pings_before_its_events(build_call: Any) -> None:
    async def play() -> Any:
        may_run = asyncio.Event()

        async def events() -> Any:
            await may_run.wait()
            yield b"data: 1\n\n"

        scene = StreamScene(build_call, events, ping_interval_s=0.001)
        task = asyncio.create_task(scene.call.run())
        await scene.call.wait_for(lambda sent: len(sent) >= 3)
        may_run.set()
        await task
        return scene.call

    call = asyncio.run(play())
    assert call.status == 200
    assert [message["type"] for message in call.sent].count("http.response.start") == 1
    assert call.text.startswith(": ping\n\n: ping\n\n")
    assert call.text.endswith(": ping\n\ndata: 1\n\n")


@pytest.mark.reported("a proxy that gave up on a queued stream after 60 s without a byte")
def test_an_error_after_the_first_ping_is_an_event(build_call: Any) -> None:
    """The status has been sent, so the error is the last event, as for any failure midway."""

    async def play() -> Any:
        is_over = asyncio.Event()

        async def events() -> Any:
            await is_over.wait()
            raise DeadlineExceededError("too late")
            yield b""

        scene = StreamScene(build_call, events, ping_interval_s=0.001)
        task = asyncio.create_task(scene.call.run())
        await scene.call.wait_for(lambda sent: len(sent) >= 2)
        is_over.set()
        await task
        return scene.call

    call = asyncio.run(play())
    assert call.status == 200
    last = call.text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert call.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_error_before_the_first_event_becomes_the_status(build_call: Any) -> None:
    async def events() -> Any:
        raise GenerationError("no")
        yield b""

    scene = StreamScene(build_call, events)
    with pytest.raises(GenerationError):
        asyncio.run(scene.call.run())
    assert scene.call.sent == []


def test_an_internal_error_midway_hides_its_details(build_call: Any, caplog: Any) -> None:
    async def events() -> Any:
        yield b"data: 1\n\n"
        raise ZeroDivisionError("secret")

    scene = StreamScene(build_call, events)
    asyncio.run(scene.call.run())
    assert "internal_error" in scene.call.text
    assert "secret" not in scene.call.text
    assert "a stream failed" in caplog.text


def test_a_cancelled_stream_closes_its_generator(build_call: Any) -> None:
    closed: list[bool] = []

    async def events() -> Any:
        try:
            yield b"data: 1\n\n"
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def play() -> None:
        scene = StreamScene(build_call, events)
        task = asyncio.create_task(scene.call.run())
        await scene.call.wait_for(lambda sent: len(sent) >= 2)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(play())
    assert closed == [True]


def test_pending_updates_are_not_serialized_after_a_disconnect(
    open_client: Callable[..., Any], build_runner: Any, build_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serializing thousands of tokens would block the event loop for all other clients."""
    runner = build_runner(script=b"x" * 200, is_gated=True)
    client = open_client(runner=runner)
    call = post(build_call, client, stream=True, max_tokens=150)
    may_write = asyncio.Event()
    send = call._send

    async def send_when_read(message: Any) -> None:
        if message["type"] == "http.response.body" and not call.gone.is_set():
            await may_write.wait()
        await send(message)

    monkeypatch.setattr(call, "_send", send_when_read)

    async def play() -> None:
        task = asyncio.create_task(call.run())
        runner.gate.release()
        await call.wait_for(bool)
        runner.open_gate()
        async with asyncio.timeout(10):
            while client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0)
        call.gone.set()
        await asyncio.sleep(0)
        may_write.set()
        await task

    client.runner.run(play())
    assert sum(piece.count(b"data: ") for piece in bodies(call.sent)) < 20
