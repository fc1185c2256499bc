"""The gateway's promises to clients when replicas come and go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.core.errors import OverloadedError, ReplicaLostError, UnavailableError
from distilgpt2_api.scale_out.gateway.forwarded import WholeAnswer

SSE = b"text/event-stream; charset=utf-8"
LOST = ReplicaLostError("the replica is gone")
PLAIN = ((b"content-type", b"text/plain"),)


def whole(replica: str, status: int, content: bytes) -> WholeAnswer:
    return WholeAnswer(replica=replica, status=status, headers=PLAIN, body=content)


def test_a_response_is_passed_on_unchanged(call: Any, replicas: Any, messages: Any) -> None:
    replicas.scripts = [
        [[messages.start(201, b"text/x", (b"x-own", b"1"))], [messages.body(b"ab", is_last=False), messages.body(b"c")]]
    ]

    answer = call("POST", "/v1/completions?x=1", content=b'{"prompt": "p"}')

    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (201, b"abc", "1")
    assert "x-request-id" not in answer.headers, "the server in front of the gateway adds one"
    [request] = replicas.asked
    assert request.body == b'{"prompt": "p"}'
    assert (request.scope["path"], request.scope["query_string"]) == ("/v1/completions", b"x=1")


def test_a_request_without_a_response_is_retried_elsewhere(call: Any, replicas: Any, messages: Any) -> None:
    replicas.scripts = [[LOST], [[messages.start(), messages.body(b"{}")]]]

    answer = call("POST", "/v1/completions", content=b'{"prompt": "p"}')

    assert (answer.status_code, answer.content) == (200, b"{}")
    assert [request.body for request in replicas.asked] == [b'{"prompt": "p"}'] * 2
    assert replicas.num_closed == 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", {"message", "type", "param", "code"}),
        ("/generate_stream", "the replica is gone"),
    ],
)
def test_a_stream_that_has_begun_ends_with_an_error_event(
    call: Any, replicas: Any, messages: Any, path: str, expected: Any
) -> None:
    """In the shape of the route's protocol."""
    replicas.scripts = [[[messages.start(200, SSE), messages.body(b"data: 1\n\n", is_last=False)], LOST]]

    answer = call("POST", path, content=b"{}")

    first, last, end = answer.text.split("\n\n")
    assert (answer.status_code, first, end) == (200, "data: 1", "")
    said = json.loads(last.removeprefix("data:"))["error"]
    assert (said if isinstance(said, str) else said.keys()) == expected
    assert len(replicas.asked) == 1


def test_a_stream_of_any_protocol_ends_with_its_own_error_event(call: Any, replicas: Any, messages: Any) -> None:
    start = messages.start(200, b"application/x-ndjson")
    replicas.scripts = [[[start, messages.body(b'{"piece":"a"}\n', is_last=False)], LOST]]

    answer = call("POST", "/toy/write", content=b"{}")

    assert [*map(json.loads, answer.text.splitlines())] == [{"piece": "a"}, {"broken": "the replica is gone"}]


def test_a_json_response_that_has_begun_is_cut_off(call: Any, replicas: Any, messages: Any) -> None:
    """The server then closes the connection, which shows that the response is incomplete."""
    replicas.scripts = [[[messages.start(), messages.body(b'{"a"', is_last=False)], LOST]]

    with pytest.raises(ReplicaLostError):
        call("POST", "/v1/completions", content=b"{}")


def test_a_request_that_crashes_its_replicas_does_not_crash_all(call: Any, replicas: Any) -> None:
    replicas.scripts = [[LOST]] * 9

    answer = call("POST", "/v1/completions", content=b"{}")

    assert len(replicas.asked) == 3
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "true"
    assert answer.json()["error"]["code"] == "unavailable"


@pytest.mark.reported("a page of another origin, which saw 'Failed to fetch' for an error that no replica had written")
def test_a_page_of_a_trusted_origin_can_read_the_gateways_own_errors(call: Any, replicas: Any) -> None:
    for origin, allowed in (("https://app.example.com", "https://app.example.com"), ("https://b.example", None)):
        replicas.asked.clear()
        replicas.scripts = [[LOST]] * 3
        answer = call("POST", "/v1/completions", content=b"{}", headers={"origin": origin})
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (503, allowed)


def test_a_replica_that_answers_503_is_skipped_while_there_are_others(call: Any, replicas: Any, messages: Any) -> None:
    """A replica answers 503 if it drains or its engine has failed; another may accept the request."""
    refusal = [[messages.start(503), messages.body(b"draining")]]
    replicas.scripts = [refusal, [[messages.start(), messages.body(b"{}")]]]
    assert call("POST", "/v1/completions", content=b"{}").content == b"{}"

    replicas.asked.clear()
    replicas.scripts = [refusal] * 3
    answer = call("POST", "/v1/completions", content=b"{}")

    assert (answer.status_code, answer.content) == (503, b"draining")


def test_a_full_queue_is_refused_as_by_one_process(call: Any, replicas: Any) -> None:
    replicas.scripts = [[OverloadedError("full", retry_after_s=2.5)]]

    answer = call("POST", "/generate", content=b"{}")

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json() == {"error": "full", "error_type": "overloaded"}
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_internal_error_hides_its_details(call: Any, replicas: Any, messages: Any, has_begun: bool) -> None:
    error = RuntimeError("a secret")
    replicas.scripts = [[[messages.start(200, SSE)], error] if has_begun else [error]]

    answer = call("POST", "/v1/completions", content=b"{}")

    assert answer.status_code == (200 if has_begun else 500)
    assert "internal_error" in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize("body_timeout_s", [0.05])
def test_bodies_are_limited_before_they_are_forwarded(call: Any, replicas: Any) -> None:
    async def slowly() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    assert call("POST", "/v1/completions", content=b"x" * 1025).status_code == 413
    assert call("POST", "/v1/completions", content=slowly()).status_code == 408
    assert replicas.asked == []


@pytest.mark.parametrize("timeout_s", [0.5])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_response_has_a_deadline(call: Any, replicas: Any, messages: Any, has_begun: bool) -> None:
    """Also without a replica, and with one that sends nothing more."""
    replicas.scripts = [[[messages.start(200, SSE)]] if has_begun else []]
    replicas.is_hanging = True

    answer = call("POST", "/v1/completions", content=b"{}")

    assert answer.status_code == (200 if has_begun else 504)
    assert "deadline_exceeded" in answer.text
    assert replicas.num_closed == 1


def test_a_disconnect_is_passed_on_to_the_replica(gateway: Any, replicas: Any) -> None:
    """Servers cancel the call, which closes the replica's generator."""
    replicas.scripts = [[]]
    replicas.is_hanging = True
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [], "query_string": b""}

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        raise AssertionError("nothing is sent")

    async def play() -> None:
        task = asyncio.create_task(gateway(scope, receive, send))
        await replicas.is_asked.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()

    asyncio.run(play())
    assert replicas.num_closed == 1


def test_the_gateway_is_alive_without_replicas_but_not_ready(call: Any, replicas: Any) -> None:
    replicas.broadcast = UnavailableError("none")

    assert call("GET", "/livez").json() == {"status": "ok"}
    assert call("GET", "/livez/").json() == {"status": "ok"}
    answer = call("GET", "/readyz")

    assert (answer.status_code, answer.json()) == (503, {"status": "loading"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_other_methods_of_its_own_routes_are_refused(call: Any, replicas: Any, messages: Any, path: str) -> None:
    replicas.scripts = [[[messages.start(405), messages.body(b"no")]]]

    assert call("TRACE", path).status_code == 405


def test_one_ready_replica_is_enough(call: Any, replicas: Any) -> None:
    replicas.broadcast = [whole("a", 503, b"draining"), whole("b", 200, b"ready")]

    answer = call("GET", "/health")

    assert (answer.status_code, answer.text) == (200, "ready")


def test_metrics_have_the_replica_as_a_label(call: Any, replicas: Any) -> None:
    page = '# HELP n Of.\n# TYPE n counter\nn_total{x="1"} %d.0\n'
    replicas.broadcast = [whole("a", 200, (page % 2).encode()), whole("b", 200, (page % 3).encode())]

    answer = call("GET", "/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    [family] = text_string_to_metric_families(answer.text)
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"x": "1", "replica": "a"}, 2.0),
        ({"x": "1", "replica": "b"}, 3.0),
    ]
    [request] = replicas.asked
    assert request.scope["method"] == "GET"
    open_metrics = call("GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    assert open_metrics.text.endswith("# EOF\n")


def test_a_replicas_refusal_of_the_metrics_is_passed_on(call: Any, replicas: Any) -> None:
    replicas.broadcast = [whole("a", 401, b"no")]

    answer = call("GET", "/metrics")

    assert (answer.status_code, answer.text) == (401, "no")


def test_it_has_a_lifespan_and_refuses_websockets(gateway: Any) -> None:
    sent: list[str] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(gateway({"type": "lifespan"}, receive, send))
    asyncio.run(gateway({"type": "websocket"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
