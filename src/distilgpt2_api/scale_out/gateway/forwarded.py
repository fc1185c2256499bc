"""What goes from the gateway to a replica and back: a request, and the application's ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

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
"""Of the ASGI specification; what else servers put there is theirs, and may not be sent anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedRequest:
    """A whole HTTP request."""

    scope: dict[str, Any]
    """With the keys of `SCOPE_KEYS` only."""
    body: bytes
    prefixes: tuple[bytes, ...] = ()
    """Digests of the prompt's beginnings, the shortest first: `prefixes_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeAnswer:
    """A short answer, all of it, and whose it is."""

    replica: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def forwardable_scope(scope: Scope) -> dict[str, Any]:
    return {key: scope[key] for key in SCOPE_KEYS if key in scope}


async def answer(app: ASGIApp, request: ForwardedRequest) -> AsyncGenerator[list[Message]]:
    """The application's messages, those together that came together. To close the generator is to hang up.

    Raises what the application raises.
    """
    exchange = _Exchange(request.body)
    # A copy: the application writes into its scope.
    work = asyncio.create_task(exchange.run(app, dict(request.scope)))
    try:
        while messages := await exchange.next_messages():
            yield messages
        await work
    finally:
        exchange.hang_up()
        await asyncio.wait({work})
        work.exception()  # Seen, whether it was raised above or nobody is left to hear it.


async def whole_answer(app: ASGIApp, request: ForwardedRequest, *, replica: str) -> WholeAnswer:
    """Of a route that answers at once."""
    status, headers, body = 0, (), b""
    async for messages in answer(app, request):
        for message in messages:
            if message["type"] == "http.response.start":
                status, headers = message["status"], tuple(message["headers"])
            else:
                body += message.get("body", b"")
    return WholeAnswer(replica=replica, status=status, headers=headers, body=body)


class _Exchange:
    """The server's side of one ASGI call. Mutable; event loop only."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: list[Message] = []
        self._news = asyncio.Event()
        self._is_done = False
        self._gone = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._is_done = True
            self._news.set()

    async def next_messages(self) -> list[Message]:
        """What has come since the last call, at least one message; none: the application has ended."""
        while not self._messages and not self._is_done:
            self._news.clear()
            await self._news.wait()
        messages, self._messages = self._messages, []
        return messages

    def hang_up(self) -> None:
        self._gone.set()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            self._messages.append(message)
            self._news.set()
