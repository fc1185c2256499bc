"""The protocol seam: what one protocol brings to the application, and which protocol a request speaks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import INTERNAL, ErrorAnswer, describe_error
from distilgpt2_api.server.http.requests.record import note_error
from distilgpt2_api.server.http.responses.stream_formats import SSE, StreamFormat
from distilgpt2_api.server.http.routing.paths import path_below_root


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One protocol. `server/app.py` lists all of them; no shared module names one."""

    routes: Sequence[BaseRoute]
    errors: ErrorShape
    stream_format: StreamFormat = SSE
    paths: frozenset[str] = frozenset()
    """Complete paths that belong to it with any method, or `METHOD /path` with one: they get its errors."""
    trees: frozenset[str] = frozenset()
    """First segments of paths that belong to it, whatever follows: they get its errors, and are never prompts."""
    bodies: tuple[type[BaseModel], ...] = ()
    """Schemas of the bodies that its routes read and write themselves, for the OpenAPI document."""
    examples: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Named request bodies by path, for the OpenAPI document."""
    prompt_keys: tuple[str, ...] = ()
    """Keys of a request body that may hold the prompt. The gateway sends prompts with one prefix to one replica."""
    operations: Mapping[str, str] = field(default_factory=dict)
    """`gen_ai.operation.name` of a request's span by route, if it is not `text_completion`."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Paths of the protocol that this service does not have, and what to do instead: for the error of a request."""


class Protocols:
    """The protocols of an application. A request that belongs to none is treated as the first one's."""

    def __init__(self, first: Protocol, *others: Protocol) -> None:
        self._all = (first, *others)
        self.default = first
        self._by_path = {path: protocol for protocol in self._all for path in protocol.paths}
        self._by_tree = {tree: protocol for protocol in self._all for tree in protocol.trees}

    def __iter__(self) -> Iterator[Protocol]:
        return iter(self._all)

    @property
    def trees(self) -> frozenset[str]:
        return frozenset(self._by_tree)

    def find(self, method: str, path: str) -> Protocol:
        """The protocol of a request. Goes by the path: a request without a key or with a wrong method has no route."""
        for key in (path, f"{method} {path}"):
            if key in self._by_path:
                return self._by_path[key]
        return self._by_tree.get(path.removeprefix("/").partition("/")[0], self.default)

    def find_operation(self, route: str) -> str:
        """A route's `gen_ai.operation.name`."""
        return next((known.operations[route] for known in self._all if route in known.operations), "text_completion")

    def find_substitute(self, path: str) -> str | None:
        """For a path that its protocol has and this service does not: what to do instead. None for any other path."""
        names = [path, "/".join(path.split("/")[:3])]
        return next((known.missing[name] for known in self._all for name in names if name in known.missing), None)

    def error_response(self, answer: ErrorAnswer, scope: Scope) -> Response:
        """The error in the shape of the request's protocol. Notes it in the request's record."""
        return _response(answer, scope, self.find(scope["method"], path_below_root(scope)).errors)

    def default_error_response(self, answer: ErrorAnswer, scope: Scope) -> Response:
        """The error of a request that is not valid HTTP, so that its path means nothing."""
        return _response(answer, scope, self.default.errors)

    async def answer_failure(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI application that answers INTERNAL."""
        await self.error_response(INTERNAL, scope)(scope, receive, send)

    async def answer_own_error(self, request: Request, error: Exception) -> Response:
        """Exception handler for Distilgpt2ApiError."""
        return self.error_response(describe_error(error), request.scope)


def _response(answer: ErrorAnswer, scope: Scope, errors: ErrorShape) -> Response:
    note_error(scope, answer.code or answer.type)
    return Response(
        errors.body(answer),
        status_code=errors.status(answer),
        headers=answer.headers,
        media_type="application/json",
    )
