"""The gateway's guarantees for clients when replicas are lost, drain or refuse."""

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


def test_a_response_is_passed_on_unchanged(call: Any, replicas: Any, words: Any) -> None:
    replicas.scripts = [
        [[words.start(201, b"text/x", (b"x-own", b"1"))], [words.body(b"ab", is_last=False), words.body(b"c")]]
    ]

    answer = call("POST", "/v1/completions?x=1", content=b'{"prompt": "p"}')

    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (201, b"abc", "1")
    assert "x-request-id" not in answer.headers, "the server in front adds its own"
    [request] = replicas.asked
    assert request.body == b'{"prompt": "p"}'
    assert (request.scope["path"], request.scope["query_string"]) == ("/v1/completions", b"x=1")


def test_a_request_without_a_first_byte_goes_to_another_replica(call: Any, replicas: Any, words: Any) -> None:
    replicas.scripts = [[LOST], [[words.start(), words.body(b"{}")]]]

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
def test_a_stream_after_its_first_byte_ends_with_an_error_event(
    call: Any, replicas: Any, words: Any, path: str, expected: Any
) -> None:
    """In the format of the route's protocol."""
    replicas.scripts = [[[words.start(200, SSE), words.body(b"data: 1\n\n", is_last=False)], LOST]]

    answer = call("POST", path, content=b"{}")

    first, last, end = answer.text.split("\n\n")
    assert (answer.status_code, first, end) == (200, "data: 1", "")
    said = json.loads(last.removeprefix("data:"))["error"]
    assert (said if isinstance(said, str) else said.keys()) == expected
    assert len(replicas.asked) == 1


def test_a_stream_of_any_protocol_ends_with_its_own_error_event(call: Any, replicas: Any, words: Any) -> None:
    start = words.start(200, b"application/x-ndjson")
    replicas.scripts = [[[start, words.body(b'{"piece":"a"}\n', is_last=False)], LOST]]

    answer = call("POST", "/toy/write", content=b"{}")

    assert [*map(json.loads, answer.text.splitlines())] == [{"piece": "a"}, {"broken": "the replica is gone"}]


def test_a_body_after_its_first_byte_is_cut(call: Any, replicas: Any, words: Any) -> None:
    """Closing the connection is the only way left to show that the response is incomplete."""
    replicas.scripts = [[[words.start(), words.body(b'{"a"', is_last=False)], LOST]]

    with pytest.raises(ReplicaLostError):
        call("POST", "/v1/completions", content=b"{}")


def test_a_request_that_crashes_replicas_is_tried_on_a_limited_number(call: Any, replicas: Any) -> None:
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


def test_a_replica_that_refuses_is_skipped_while_there_are_others(call: Any, replicas: Any, words: Any) -> None:
    """A replica that drains or whose engine has failed answers 503; another may accept the request."""
    refusal = [[words.start(503), words.body(b"draining")]]
    replicas.scripts = [refusal, [[words.start(), words.body(b"{}")]]]
    assert call("POST", "/v1/completions", content=b"{}").content == b"{}"

    replicas.asked.clear()
    replicas.scripts = [refusal] * 3
    answer = call("POST", "/v1/completions", content=b"{}")

    assert (answer.status_code, answer.content) == (503, b"draining")


def test_a_full_queue_is_refused_as_by_a_single_process(call: Any, replicas: Any) -> None:
    replicas.scripts = [[OverloadedError("full", retry_after_s=2.5)]]

    answer = call("POST", "/generate", content=b"{}")

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json() == {"error": "full", "error_type": "overloaded"}
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_internal_error_reveals_no_details(call: Any, replicas: Any, words: Any, has_begun: bool) -> None:
    mistake = RuntimeError("a secret")
    replicas.scripts = [[[words.start(200, SSE)], mistake] if has_begun else [mistake]]

    answer = call("POST", "/v1/completions", content=b"{}")

    assert answer.status_code == (200 if has_begun else 500)
    assert "internal_error" in answer.text
    assert "secret" not in answer.text


def test_bodies_are_limited_before_they_reach_a_replica(call: Any, replicas: Any) -> None:
    async def slowly() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    assert call("POST", "/v1/completions", content=b"x" * 1025).status_code == 413
    assert call("POST", "/v1/completions", content=slowly()).status_code == 408
    assert replicas.asked == []


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_response_is_limited_in_time(call: Any, replicas: Any, words: Any, has_begun: bool) -> None:
    """Clients don't wait indefinitely if there is no replica, or one that stops sending."""
    replicas.scripts = [[[words.start(200, SSE)]] if has_begun else []]
    replicas.is_hanging = True

    answer = call("POST", "/v1/completions", content=b"{}")

    assert answer.status_code == (200 if has_begun else 504)
    assert "deadline_exceeded" in answer.text
    assert replicas.num_closed == 1


def test_a_client_that_disconnects_aborts_its_request(gateway: Any, replicas: Any) -> None:
    """The server cancels the call, and nothing keeps waiting for the response."""
    replicas.scripts = [[]]
    replicas.is_hanging = True
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [], "query_string": b""}

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        raise AssertionError("there is nothing to say")

    async def play() -> None:
        task = asyncio.create_task(gateway(scope, receive, send))
        await replicas.is_asked.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()

    asyncio.run(play())
    assert replicas.num_closed == 1


def test_the_gateway_is_alive_without_replicas_but_not_ready(call: Any, replicas: Any) -> None:
    replicas.answers = UnavailableError("none")

    assert call("GET", "/livez").json() == {"status": "ok"}
    assert call("GET", "/livez/").json() == {"status": "ok"}
    answer = call("GET", "/readyz")

    assert (answer.status_code, answer.json()) == (503, {"status": "loading"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_other_methods_of_the_gateways_routes_are_refused_as_by_a_single_process(
    call: Any, replicas: Any, words: Any, path: str
) -> None:
    replicas.scripts = [[[words.start(405), words.body(b"no")]]]

    assert call("TRACE", path).status_code == 405


def test_one_ready_replica_is_enough(call: Any, replicas: Any) -> None:
    replicas.answers = [whole("a", 503, b"draining"), whole("b", 200, b"ready")]

    answer = call("GET", "/health")

    assert (answer.status_code, answer.text) == (200, "ready")


def test_metrics_are_labelled_by_replica(call: Any, replicas: Any) -> None:
    page = '# HELP n Of.\n# TYPE n counter\nn_total{x="1"} %d.0\n'
    replicas.answers = [whole("a", 200, (page % 2).encode()), whole("b", 200, (page % 3).encode())]

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


def test_metrics_without_permission_are_refused(call: Any, replicas: Any) -> None:
    replicas.answers = [whole("a", 401, b"no")]

    answer = call("GET", "/metrics")

    assert (answer.status_code, answer.text) == (401, "no")


def test_lifespan_is_answered_and_websockets_are_closed(gateway: Any) -> None:
    sent: list[str] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(gateway({"type": "lifespan"}, receive, send))
    asyncio.run(gateway({"type": "websocket"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
