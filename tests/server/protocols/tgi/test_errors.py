"""Errors on TGI's routes have TGI's shape, statuses and types; all others have OpenAI's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.errors import GenerationError, InvalidRequestError
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.http.errors import describe_error
from distilgpt2_api.server.protocols.tgi.errors import TGI_ERRORS

PATHS = ["/", "/generate", "/generate_stream"]
BODY = {"inputs": "ab", "parameters": {"max_new_tokens": 20}}


def check(answer: Any, status: int, error_type: str) -> str:
    """The message."""
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert error.keys() == {"error", "error_type"}
    assert error["error_type"] == error_type
    assert answer.headers["x-request-id"]
    return str(error["error"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 422),
        (b"[]", {}, 422),
        (b'{"inputs": "a", "inputs": "b"}', {}, 422),
        (b'{"inputs": "\\ud800"}', {}, 422),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b" " * 70_000, {}, 413),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_body(client: Any, path: str, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = client.post(path, content=content, headers={"content-type": "application/json", **headers})
    check(answer, status, "validation")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("DELETE", "/generate_stream", "POST"),
        ("POST", "/info", "GET, HEAD"),
    ],
)
def test_a_wrong_method(client: Any, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert method in check(answer, 405, "validation")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("prefix", ["", "/prefix"])
def test_the_other_routes_keep_openais_shape(open_client: Callable[..., Any], prefix: str) -> None:
    """Below a proxy's prefix as well."""
    client = open_client(root_path=prefix)
    for path in ("/v1/completions", "/tokenize"):
        assert client.post(path, json={"inputs": "a"}).json()["error"].keys() == {"message", "type", "param", "code"}
    for method, path in (("GET", "/v1/nothing"), ("GET", "/once?top_k=x"), ("POST", "/livez"), ("POST", "/generate/x")):
        assert client.request(method, path).json()["error"]["type"] == "invalid_request_error"
    check(client.post("/generate", json={}), 422, "validation")


@pytest.mark.parametrize("path", PATHS)
def test_a_full_queue(open_client: Callable[..., Any], build_runner: Any, path: str) -> None:
    """429, with a time to retry."""
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner, max_waiting_requests=1)

    async def play() -> Any:
        first = asyncio.create_task(client._http.post("/generate", json=BODY))
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        answer = await client._http.post(path, json=BODY)
        runner.open_gate()
        assert (await first).status_code == 200
        return answer

    answer = client.runner.run(play())
    check(answer, 429, "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert int(answer.headers["retry-after-ms"]) >= 1
    assert answer.headers["x-should-retry"] == "true"


def test_while_the_model_loads(open_client: Callable[..., Any]) -> None:
    is_loaded = threading.Event()
    client = open_client(on_load=lambda: is_loaded.wait(20) or None, is_loaded=False)
    try:
        for answer in (*(client.post(path, json=BODY) for path in PATHS), client.get("/info")):
            check(answer, 503, "healthcheck")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 503
    finally:
        is_loaded.set()
    client.runner.run(client.scene.engine.wait_loaded())
    assert client.post("/", json=BODY).status_code == 200
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_deadline(open_client: Callable[..., Any], build_runner: Any, path: str) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner, timeout_s=1e-9)

    async def play() -> Any:
        asking = asyncio.create_task(client._http.post(path, json=BODY))
        while not client.scene.engine.num_requests:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
        runner.open_gate()
        return await asking

    check(client.runner.run(play()), 504, "incomplete_generation")


@pytest.mark.parametrize(
    ("error", "called"),
    [
        (GenerationError("the completion failed"), (424, "generation")),
        (ZeroDivisionError("secret"), (500, "incomplete_generation")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", PATHS)
def test_a_failure(
    client: Any, monkeypatch: pytest.MonkeyPatch, path: str, error: Exception, called: tuple[int, str]
) -> None:
    async def fail(_generation: Generation) -> Any:
        raise error
        yield

    monkeypatch.setattr(Generation, "updates", fail)
    answer = client.post(path, json=BODY)
    assert "secret" not in check(answer, *called)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/", "/generate_stream"])
def test_a_failure_in_a_stream_is_its_last_event(open_client: Callable[..., Any], build_runner: Any, path: str) -> None:
    def fail(_plan: Any) -> None:
        if len(runner.plans) == 4:
            raise ZeroDivisionError

    runner = build_runner(on_run=fail)
    client = open_client(runner=runner, on_failure=lambda _error: None)
    answer = client.post(path, json={**BODY, "stream": True})
    assert answer.status_code == 200
    events = [json.loads(event.removeprefix("data:")) for event in answer.text.strip().split("\n\n")]
    assert [event["token"]["text"] for event in events[:-1]] == [" ", "h", "e"]
    assert events[-1].keys() == {"error", "error_type"}
    assert events[-1]["error_type"] == "healthcheck"
    check(client.post(path, json=BODY), 503, "healthcheck")


def test_an_error_without_the_parameters_name_gets_it() -> None:
    """TGI's errors have no other field for it than the message."""
    for message, expected in (("too long", "inputs: too long"), ("inputs: too long", "inputs: too long")):
        body = TGI_ERRORS.body(describe_error(InvalidRequestError(message, param="inputs")))
        assert json.loads(body) == {"error": expected, "error_type": "validation"}


def test_the_document_has_the_statuses_and_the_shape(client: Any) -> None:
    document = client.get("/openapi.json").json()
    for path in PATHS:
        responses = document["paths"][path]["post"]["responses"]
        assert responses.keys() == {"200", "408", "413", "415", "422", "424", "429", "500", "503", "504"}
        for status in responses.keys() - {"200"}:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/TgiErrorResponse"}
        assert ("text/event-stream" in responses["200"]["content"]) == (path != "/generate")
        assert ("application/json" in responses["200"]["content"]) == (path != "/generate_stream")
    assert "422" not in document["paths"]["/{prompt}"]["get"]["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.reported("an attack with long stop sequences on many prompts")
def test_stop_sequences_are_bounded_together(client: Any) -> None:
    body = {"inputs": "ab", "parameters": {"stop": ["a" * 4096, "b" * 4097]}}
    message = check(client.post("/generate", json=body), 422, "validation")
    assert message.startswith("parameters.stop: 8193 bytes of UTF-8 together; the maximum is 8192")
