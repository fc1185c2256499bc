"""404 for an unknown path and 405 for a wrong method, with advice."""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from urllib.parse import quote, unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from distilgpt2_api.server.http.errors import INVALID, ErrorAnswer
from distilgpt2_api.server.http.routing.paths import raw_path_of, without_root
from distilgpt2_api.server.http.routing.protocol import Protocols

SLASHES = re.compile("/+")
GET_ADVICE = "; GET continues a path as text unless it looks like an address"


async def answer_http_error(protocols: Protocols, request: Request, error: Exception) -> Response:
    """Exception handler for errors of the router and of static files."""
    assert isinstance(error, HTTPException)
    assert error.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
    headers = {}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_allowed_methods(request.scope))
        message = f"{request.method} is not allowed here; allowed: {headers['allow']}"
    else:
        path = unquote(raw_path_of(request.scope))  # with U+FFFD for what is not UTF-8
        message = f"no such URL: {request.method} {path[:200]}; {_advice(request.scope, path, protocols)}"
    answer = ErrorAnswer(status=error.status_code, message=message, type=INVALID, headers=headers)
    return protocols.error_response(answer, request.scope)


def _advice(scope: Scope, sent: str, protocols: Protocols) -> str:
    requested = without_root(sent, scope.get("root_path", ""))
    if (substitute := protocols.find_substitute(requested.rstrip("/"))) is not None:
        return substitute
    for path in _similar_paths(requested, protocols.trees):
        if path != requested and _allowed_methods(_at(scope, path)):
            return f"did you mean {path[:200]}?"
    examples = ", ".join(path for protocol in protocols for path in protocol.examples if path != "/")
    return f"there are {examples} and others, which /docs lists" + (GET_ADVICE if scope["method"] == "GET" else "")


def _similar_paths(path: str, trees: Iterable[str]) -> Iterator[str]:
    """Corrections of a path that lacks a tree such as `/v1`, repeats it, has a path before it, or doubles a slash."""
    single = SLASHES.sub("/", path).rstrip("/")
    for tree in sorted(trees):
        yield f"/{tree}{single}"
        _, separator, rest = single.rpartition(f"/{tree}/")
        yield f"{separator}{rest}"
    yield single


def _at(scope: Scope, path: str) -> Scope:
    """The same request with another path."""
    whole = f"{scope.get('root_path', '')}{path}"
    return {**scope, "path": whole, "raw_path": quote(whole).encode()}


def _allowed_methods(scope: Scope) -> list[str]:
    """The methods of all routes with this path. The router would name only the first route's."""
    routes = [route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})
