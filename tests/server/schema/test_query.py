"""Query strings: unknown keys are refused by name, except where monitors and browsers send keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.errors import UnknownParameterError, describe_error

OPEN = {
    *("/", "/livez", "/readyz", "/healthz", "/health", "/ping", "/metrics", "/robots.txt"),
    *("/docs", "/redoc", "/openapi.json", "/docs/assets/{name}", "/ui", "/ui/assets/{name}"),
}


def error_of(answer: Any) -> tuple[int, str, str | None]:
    """Status, message and parameter of an error in the default shape."""
    error = answer.json()["error"]
    return answer.status_code, error["message"], error["param"]


@pytest.mark.reported("a client that asked for /v1/models?foo=1 and got an answer that ignored foo")
def test_an_unknown_key_is_refused_by_every_api_route(
    open_client: Callable[..., Any], routes: Sequence[BaseRoute], open_batch_service: Any
) -> None:
    client = open_client(open_batch_service=open_batch_service)
    asked = 0
    for route in routes:
        assert isinstance(route, APIRoute)
        for method in route.methods or ():
            path = route.path_format.replace("{", "").replace("}", "")
            answer = client.request(method, f"{path}?foo=1")
            if route.path in OPEN and method != "POST":
                assert answer.status_code in {200, 404}, path
                continue
            asked += 1
            errors = PROTOCOLS.find(method, path).errors
            expected = describe_error(UnknownParameterError("unknown parameter: 'foo' in the query", param="foo"))
            assert answer.status_code == errors.status(expected), (method, path)
            if method != "HEAD":
                assert answer.content == errors.body(expected)
    assert asked > 20


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/once?seed=1&seed=1", "seed"),
        ("/once?seed=1&top_k=3&seed=2", "seed"),
        ("/once?max_new_tokens=1&max_new_tokens=", "max_new_tokens"),
        ("/v1/files?limit=1&limit=2", "limit"),
        ("/v1/batches?limit=1&%6cimit=2", "limit"),
    ],
)
@pytest.mark.reported("a client that sent one key of the query twice and did not learn which was used")
def test_a_duplicate_key_is_refused(
    open_client: Callable[..., Any], open_batch_service: Any, path: str, name: str
) -> None:
    client = open_client(open_batch_service=open_batch_service)
    status, message, param = error_of(client.get(path))
    assert (status, param) == (400, name)
    assert message == f"the query has the key {name!r} twice"


@pytest.mark.parametrize("query", ["", "limit=2", "limit=2&order=asc&purpose=batch"])
def test_a_known_key_is_accepted_once(open_client: Callable[..., Any], open_batch_service: Any, query: str) -> None:
    assert open_client(open_batch_service=open_batch_service).get(f"/v1/files?{query}").status_code == 200


def test_the_document_says_that_a_query_may_be_refused(client: Any) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    refusals = {
        (path, method): one["responses"].keys() & {"400", "422"}
        for path in paths
        for method, one in paths[path].items()
    }
    assert {path for (path, _), statuses in refusals.items() if not statuses} <= OPEN
    assert refusals["/v1/models", "get"] == {"400"}
    assert refusals["/info", "get"] == {"422"}
    assert refusals["/", "get"] == set()


@pytest.mark.reported("a reader of the plain route, who wrote max_tokens as everywhere else")
def test_an_unknown_key_that_is_known_elsewhere_names_its_replacement(client: Any) -> None:
    answer = client.get("/once?max_tokens=5")
    assert error_of(answer) == (
        400,
        "unknown parameter: 'max_tokens' in the query; use `max_new_tokens`",
        "max_tokens",
    )
