"""A request and its response between the gateway and a replica, as ASGI messages."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from distilgpt2_api.server.http.in_process import Exchange, call

SCOPE_KEYS = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)
"""The ASGI specification's keys. Servers add others, which may not be serializable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedRequest:
    """A whole HTTP request."""

    scope: dict[str, Any]
    """Has only the keys of `SCOPE_KEYS`."""
    body: bytes
    prefixes: tuple[bytes, ...] = ()
    """Digests of the prompt's prefixes, the shortest first: see `prefixes_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeAnswer:
    """A complete short response, and the replica that gave it."""

    replica: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def forwardable_scope(scope: Scope) -> dict[str, Any]:
    return {key: scope[key] for key in SCOPE_KEYS if key in scope}


async def answer(app: ASGIApp, request: ForwardedRequest) -> AsyncGenerator[list[Message]]:
    """Yields the application's messages, those together that were sent together. Closing the generator hangs up.

    Raises what the application raises.
    """
    exchange = Exchange(request.body)
    # A copy: the application writes into its scope.
    work = asyncio.create_task(exchange.run(app, dict(request.scope)))
    try:
        while messages := await exchange.next_messages():
            yield messages
        await work
    finally:
        exchange.disconnect()
        await asyncio.wait({work})
        work.exception()  # Retrieved, or asyncio would log it if the caller has hung up.


async def whole_answer(app: ASGIApp, request: ForwardedRequest, *, replica: str) -> WholeAnswer:
    """The complete response of a route that doesn't stream."""
    status, headers, body = await call(app, dict(request.scope), request.body)
    return WholeAnswer(replica=replica, status=status, headers=headers, body=body)
