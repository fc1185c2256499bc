"""The error shape of every route, for every kind of failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from distilgpt2_api.cli.api_reference.page import api_page
from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.app import PROTOCOLS, build_routes
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

TEMPLATE = ChatTemplate("{{ messages[0].content }}", origin="test")
DEFAULT = PROTOCOLS.default.errors
PAGES = {"/docs", "/redoc", "/docs/assets/name", "/ui", "/ui/assets/name"}
OPEN = {"/livez", "/readyz", "/healthz", "/health", "/ping", *PAGES}
STATIC = {"/robots.txt", "/openapi.json", *PAGES}


def names_of(route: APIRoute) -> list[str]:
    return [f"{method} {route.path_format}" for method in route.methods or () if method != "HEAD"]


BY_PROTOCOL = [(protocol, route) for protocol in PROTOCOLS for route in protocol.routes if isinstance(route, APIRoute)]
OWN_SHAPES = {name: protocol.errors for protocol, route in BY_PROTOCOL for name in names_of(route)}
SHAPES = {
    name: OWN_SHAPES.get(name, DEFAULT)
    for route in build_routes()
    if isinstance(route, APIRoute)
    for name in names_of(route)
}
"""The error shape of every route: its protocol's. Probes, metrics and pages belong to no protocol."""
ROUTES = [(*name.replace("{", "").replace("}", "").partition(" ")[::2], shape) for name, shape in SHAPES.items()]
USES_ENGINE = [
    (protocol, route) for protocol, route in BY_PROTOCOL if route.methods == {"POST"} and 504 in route.responses
]
GENERATING = [
    (route.path, protocol.errors, next(iter(protocol.examples[route.path].values()))) for protocol, route in USES_ENGINE
]
"""Routes that use the engine, so that they have a deadline, with the first example of a body."""
STREAMING = {
    route.path
    for protocol, route in USES_ENGINE
    if protocol.stream_format.content_type.decode().partition(";")[0] in route.responses.get(200, {}).get("content", {})
}


def answer_of(status: int) -> ErrorAnswer:
    return ErrorAnswer(status=status, message="wrong", type="invalid_request_error", param="prompt")


def fields_of(value: object) -> object:
    """The names of all fields."""
    return {name: fields_of(one) for name, one in value.items()} if isinstance(value, dict) else None


def check(answer: Any, shape: ErrorShape, *statuses: int) -> None:
    """Check that the status is the shape's for one of these, and that the body has exactly this shape."""
    assert answer.status_code in {shape.status(answer_of(status)) for status in statuses}, answer.text
    shape.model.model_validate(answer.json(), strict=True)
    assert fields_of(answer.json()) == fields_of(json.loads(shape.body(answer_of(400))))


def last_event(text: str) -> Any:
    """The last one of a stream of server-sent events or NDJSON."""
    *_, last = filter(None, text.splitlines())
    return json.loads(last.removeprefix("data:"))


@pytest.mark.parametrize(
    ("route", "protocol"),
    [
        ("POST /v1/completions", "OpenAI"),
        ("POST /v1/score", "OpenAI"),
        ("POST /tokenize", "OpenAI"),
        ("GET /{prompt}", "OpenAI"),
        ("GET /livez", "OpenAI"),
        ("GET /", "OpenAI"),
        ("POST /", "TGI"),
        ("POST /generate", "TGI"),
        ("GET /info", "TGI"),
    ],
)
def test_a_route_has_its_protocol_s_shape(route: str, protocol: str) -> None:
    assert SHAPES[route].name == protocol


def test_routes_that_use_the_engine_are_found() -> None:
    """Their declared statuses and media types tell."""
    paths = {path for path, _, _ in GENERATING}
    assert paths >= {"/v1/completions", "/v1/chat/completions", "/v1/score", "/", "/generate", "/generate_stream"}
    assert paths >= STREAMING >= {"/v1/completions", "/v1/chat/completions", "/", "/generate_stream"}


def test_the_documentation_has_the_same_shapes() -> None:
    cells = [line.split(" | ") for line in api_page(build_routes()).splitlines() if line.startswith("| `")]
    shapes = {row[0][3:-1]: row[2] for row in cells if row[0][3:-1] in SHAPES}
    assert shapes == {name: f"{shape.name}'s" for name, shape in SHAPES.items()}


@pytest.mark.reported(
    "a client of GET /, which got Hugging Face's error without a key, and OpenAI's for everything else"
)
@pytest.mark.parametrize(("method", "path", "shape"), ROUTES)
def test_a_missing_key(open_client: Callable[..., Any], method: str, path: str, shape: ErrorShape) -> None:
    client = open_client(access=Access(keys=KeyRing((ApiKey(name="alice", digest=digest_of(b"k" * 20)),))))
    if path not in OPEN:
        check(client.request(method, path), shape, 401)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE"])
def test_a_wrong_method(client: Any, method: str) -> None:
    for _, path, shape in ROUTES:
        # At /, POST is TGI's and GET is the workshop's; other methods get the default shape.
        if (method, path) != ("PATCH", "/prompt"):
            check(client.request(method, path), DEFAULT if path == "/" else shape, 405)


def test_an_unknown_path(client: Any) -> None:
    for method, path in (
        ("GET", "/v1/x"),
        ("POST", "/x"),
        ("GET", "/generate/x"),
        ("GET", "/info/x"),
        ("POST", "/info2"),
    ):
        check(client.request(method, path), DEFAULT, 404)


@pytest.mark.parametrize(("path", "shape", "body"), GENERATING)
def test_a_wrong_body(client: Any, path: str, shape: ErrorShape, body: dict[str, Any]) -> None:
    headers = {"content-type": "application/json"}
    check(client.post(path, content=b"{", headers=headers), shape, 400)
    check(client.post(path, json={**body, "foo": 1}), shape, 400)
    check(client.post(path, content=b"{}", headers={"content-type": "text/plain"}), shape, 415)
    check(client.post(path, content=b" " * 70_000, headers=headers), shape, 413)


@pytest.fixture
def loading(open_client: Callable[..., Any]) -> Iterator[Any]:
    """A client of a service that is loading its model."""
    is_loaded = threading.Event()
    yield open_client(on_load=lambda: is_loaded.wait(20) or None, is_loaded=False, chat_template=TEMPLATE)
    is_loaded.set()


@pytest.mark.parametrize(
    ("path", "shape", "body"), [*GENERATING, ("/a", DEFAULT, None), ("/info", SHAPES["GET /info"], None)]
)
def test_the_model_is_loading(loading: Any, path: str, shape: ErrorShape, body: dict[str, Any] | None) -> None:
    check(loading.request("GET" if body is None else "POST", path, json=body), shape, 503)


@pytest.mark.parametrize(("path", "shape", "body"), [*GENERATING, ("/a", DEFAULT, None)])
def test_a_rate_limit_and_a_deadline(
    open_client: Callable[..., Any], path: str, shape: ErrorShape, body: dict[str, Any] | None
) -> None:
    method = "GET" if body is None else "POST"
    limits = CallerLimits(tokens_per_s=1e-6, burst_tokens=100)
    busy = open_client(access=Access(address_limits=limits), chat_template=TEMPLATE)
    answers = [busy.request(method, path, json=body) for _ in range(12)]
    assert answers[0].status_code == 200
    check(answers[-1], shape, 429)
    late = open_client(timeout_s=1e-9, chat_template=TEMPLATE)
    check(late.request(method, path, json=body), shape, 504)


@pytest.mark.parametrize(("method", "path", "shape"), [route for route in ROUTES if route[1] not in STATIC])
def test_an_internal_error(open_client: Callable[..., Any], method: str, path: str, shape: ErrorShape) -> None:
    client = open_client()
    client.scene.app.state.service = None
    check(client.request(method, path), shape, 500)


@pytest.mark.parametrize(("path", "shape", "body"), [case for case in GENERATING if case[0] in STREAMING])
def test_a_failure_after_the_first_byte(
    open_client: Callable[..., Any], build_runner: Any, path: str, shape: ErrorShape, body: dict[str, Any]
) -> None:
    def fail(_plan: Any) -> None:
        if len(runner.plans) == 3:
            raise ZeroDivisionError

    runner = build_runner(on_run=fail)
    client = open_client(runner=runner, on_failure=lambda _error: None, chat_template=TEMPLATE)
    answer = client.post(path, json={**body, "stream": True})
    if answer.status_code == shape.status(answer_of(400)):  # It always streams, and has no such field.
        answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert fields_of(last_event(answer.text)) == fields_of(last_event(shape.last_event(answer_of(500)).decode()))
