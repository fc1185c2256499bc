"""No such path (404), no such method there (405): what a client that came to the wrong address should know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import quote, unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from distilgpt2_api.server.http.errors import INVALID, ErrorAnswer, error_response
from distilgpt2_api.server.http.paths import raw_path_of, without_root

SLASHES = re.compile("/+")
PROTOCOLS = "there are /v1/completions, /v1/chat/completions, /v1/models, /generate and others, which /docs lists"
NO_PROMPT = "; a GET continues a text unless it looks like an address, POST /generate continues any text"


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Handler of what routers raise, and routes of files."""
    assert isinstance(error, HTTPException)
    assert error.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
    headers = {}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_allowed_methods(request.scope))
        message = f"{request.method} is not allowed here; allowed: {headers['allow']}"
    else:
        path = unquote(raw_path_of(request.scope))  # with U+FFFD for what is not UTF-8
        message = f"no such URL: {request.method} {path[:200]}; {_advice(request.scope, path)}"
    answer = ErrorAnswer(status=error.status_code, message=message, type=INVALID, headers=headers)
    return error_response(answer, request.scope)


def _advice(scope: Scope, sent: str) -> str:
    asked = without_root(sent, scope.get("root_path", ""))
    for path in _similar_paths(asked):
        if path != asked and _allowed_methods(_at(scope, path)):
            return f"did you mean {path[:200]}?"
    return PROTOCOLS + (NO_PROMPT if scope["method"] == "GET" else "")


def _similar_paths(path: str) -> Iterator[str]:
    """For a base URL without `/v1`, with two of it or with an endpoint's path before it, or with a slash too many."""
    single = SLASHES.sub("/", path).rstrip("/")
    yield f"/v1{single}"
    _, version, rest = single.rpartition("/v1/")
    yield f"{version}{rest}"
    yield single


def _at(scope: Scope, path: str) -> Scope:
    """The same request, of another path."""
    whole = f"{scope.get('root_path', '')}{path}"
    return {**scope, "path": whole, "raw_path": quote(whole).encode()}


def _allowed_methods(scope: Scope) -> list[str]:
    """Of all routes with this path: the router names those of the first only."""
    routes = [route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})
