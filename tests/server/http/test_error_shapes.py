"""The error shape of every route, for every kind of failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from distilgpt2_api.cli.api_reference.page import api_page
from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.app import build_routes
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.text.chat_template import ChatTemplate

TEMPLATE = ChatTemplate("{{ messages[0].content }}", origin="test")
OPENAI, TGI = "OpenAI's", "TGI's"
GENERATE = {"inputs": "a", "parameters": {"max_new_tokens": 5}}

TABLE: dict[str, tuple[str, dict[str, Any] | None]] = {
    "POST /v1/completions": (OPENAI, {"prompt": "a", "max_tokens": 5}),
    "POST /v1/chat/completions": (OPENAI, {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5}),
    "POST /v1/score": (OPENAI, {"input": ["a"]}),
    "POST /v1/files": (OPENAI, None),
    "GET /v1/files": (OPENAI, None),
    "GET /v1/files/{file_id}": (OPENAI, None),
    "DELETE /v1/files/{file_id}": (OPENAI, None),
    "GET /v1/files/{file_id}/content": (OPENAI, None),
    "POST /v1/batches": (OPENAI, None),
    "GET /v1/batches": (OPENAI, None),
    "GET /v1/batches/{batch_id}": (OPENAI, None),
    "POST /v1/batches/{batch_id}/cancel": (OPENAI, None),
    "GET /v1/models": (OPENAI, None),
    "GET /v1/models/{model}": (OPENAI, None),
    "POST /": (TGI, GENERATE),
    "POST /generate": (TGI, GENERATE),
    "POST /generate_stream": (TGI, GENERATE),
    "GET /info": (TGI, None),
    "POST /tokenize": (OPENAI, None),
    "POST /detokenize": (OPENAI, None),
    "GET /tokenizer_info": (OPENAI, None),
    "GET /livez": (OPENAI, None),
    "GET /readyz": (OPENAI, None),
    "GET /healthz": (OPENAI, None),
    "GET /health": (OPENAI, None),
    "GET /ping": (OPENAI, None),
    "GET /metrics": (OPENAI, None),
    "GET /version": (OPENAI, None),
    "GET /robots.txt": (OPENAI, None),
    "GET /docs": (OPENAI, None),
    "GET /redoc": (OPENAI, None),
    "GET /docs/assets/{name}": (OPENAI, None),
    "GET /openapi.json": (OPENAI, None),
    "GET /ui": (OPENAI, None),
    "GET /ui/assets/{name}": (OPENAI, None),
    "GET /": (OPENAI, None),
    "GET /{prompt}": (OPENAI, None),
}
"""The error shape of every route, and a body for routes that use the engine."""
ROUTES = [(*name.replace("{", "").replace("}", "").split(" "), shape) for name, (shape, _) in TABLE.items()]
GENERATING = [(name.partition(" ")[2], shape, body) for name, (shape, body) in TABLE.items() if body is not None]
OPEN = {"/livez", "/readyz", "/healthz", "/health", "/ping", "/ui", "/ui/assets/name"}
STATIC = {"/robots.txt", "/docs", "/redoc", "/docs/assets/name", "/openapi.json", "/ui", "/ui/assets/name"}


def check(answer: Any, shape: str, *statuses: int) -> None:
    """Check that the status is one of these, and that the body has exactly this shape."""
    assert answer.status_code in statuses, answer.text
    check_body(answer.json(), shape)


def check_body(body: dict[str, Any], shape: str) -> None:
    if shape == TGI:
        assert body.keys() == {"error", "error_type"}, body
        assert isinstance(body["error"], str)
    else:
        assert body.keys() == {"error"}, body
        assert body["error"].keys() == {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def every_route(routes: Sequence[BaseRoute]) -> set[str]:
    assert all(isinstance(route, APIRoute) for route in routes)
    return {
        f"{method} {route.path_format}"
        for route in routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
        if method != "HEAD"
    }


def test_the_table_has_every_route(every_route: set[str]) -> None:
    assert TABLE.keys() == every_route


def test_the_documentation_has_the_same_shapes(every_route: set[str]) -> None:
    cells = [line.split(" | ") for line in api_page(build_routes()).splitlines() if line.startswith("| `")]
    shapes = {row[0][3:-1]: row[2] for row in cells if row[0][3:-1] in every_route}
    assert shapes == {name: shape for name, (shape, _) in TABLE.items()}


@pytest.mark.reported(
    "a client of GET /, which got Hugging Face's error without a key, and OpenAI's for everything else"
)
@pytest.mark.parametrize(("method", "path", "shape"), ROUTES)
def test_a_missing_key(open_client: Callable[..., Any], method: str, path: str, shape: str) -> None:
    client = open_client(access=Access(keys=KeyRing((ApiKey(name="alice", digest=digest_of(b"k" * 20)),))))
    if path not in OPEN:
        check(client.request(method, path), shape, 401)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE"])
def test_a_wrong_method(client: Any, method: str) -> None:
    for _, path, shape in ROUTES:
        # At /, POST is TGI's and GET is the workshop's; other methods get the default shape.
        if (method, path) != ("PATCH", "/prompt"):
            check(client.request(method, path), OPENAI if path == "/" else shape, 405)


def test_an_unknown_path(client: Any) -> None:
    for method, path in (
        ("GET", "/v1/x"),
        ("POST", "/x"),
        ("GET", "/generate/x"),
        ("GET", "/info/x"),
        ("POST", "/info2"),
    ):
        check(client.request(method, path), OPENAI, 404)


@pytest.mark.parametrize(("path", "shape", "body"), GENERATING)
def test_a_wrong_body(client: Any, path: str, shape: str, body: dict[str, Any]) -> None:
    headers = {"content-type": "application/json"}
    check(client.post(path, content=b"{", headers=headers), shape, 422 if shape == TGI else 400)
    check(client.post(path, json={**body, "foo": 1}), shape, 422 if shape == TGI else 400)
    check(client.post(path, content=b"{}", headers={"content-type": "text/plain"}), shape, 415)
    check(client.post(path, content=b" " * 70_000, headers=headers), shape, 413)


@pytest.fixture
def loading(open_client: Callable[..., Any]) -> Iterator[Any]:
    """A client of a service that is loading its model."""
    is_loaded = threading.Event()
    yield open_client(on_load=lambda: is_loaded.wait(20) or None, is_loaded=False, chat_template=TEMPLATE)
    is_loaded.set()


@pytest.mark.parametrize(("path", "shape", "body"), [*GENERATING, ("/a", OPENAI, None), ("/info", TGI, None)])
def test_the_model_is_loading(loading: Any, path: str, shape: str, body: dict[str, Any] | None) -> None:
    check(loading.request("GET" if body is None else "POST", path, json=body), shape, 503)


@pytest.mark.parametrize(("path", "shape", "body"), [*GENERATING, ("/a", OPENAI, None)])
def test_a_rate_limit_and_a_deadline(
    open_client: Callable[..., Any], path: str, shape: str, body: dict[str, Any] | None
) -> None:
    method = "GET" if body is None else "POST"
    limits = CallerLimits(tokens_per_s=1e-6, burst_tokens=60 if body is None else 10)
    busy = open_client(access=Access(address_limits=limits), chat_template=TEMPLATE)
    answers = [busy.request(method, path, json=body) for _ in range(12)]
    assert answers[0].status_code == 200
    check(answers[-1], shape, 429)
    late = open_client(timeout_s=1e-9, chat_template=TEMPLATE)
    check(late.request(method, path, json=body), shape, 504)


@pytest.mark.parametrize(("method", "path", "shape"), [route for route in ROUTES if route[1] not in STATIC])
def test_an_internal_error(open_client: Callable[..., Any], method: str, path: str, shape: str) -> None:
    client = open_client()
    client.scene.app.state.service = None
    check(client.request(method, path), shape, 500)


@pytest.mark.parametrize(
    ("path", "shape", "body"), [case for case in GENERATING if case[0] not in {"/generate", "/v1/score"}]
)
def test_a_failure_after_the_first_byte(
    open_client: Callable[..., Any], build_runner: Any, path: str, shape: str, body: dict[str, Any]
) -> None:
    def fail(_plan: Any) -> None:
        if len(runner.plans) == 3:
            raise ZeroDivisionError

    runner = build_runner(on_run=fail)
    client = open_client(runner=runner, on_failure=lambda _error: None, chat_template=TEMPLATE)
    answer = client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    events = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
    check_body(json.loads(events[-1]), shape)
