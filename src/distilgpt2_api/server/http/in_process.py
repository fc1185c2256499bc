"""ASGI calls without a socket: requests to the application from within its own process."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessAnswer:
    """A complete response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange:
    """The server's side of one ASGI call. The body is delivered in one piece. Mutable; event loop only."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: list[Message] = []
        self._has_news = asyncio.Event()
        self._is_done = False
        self._is_disconnected = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the application. Raises what it raises."""
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._is_done = True
            self._has_news.set()

    async def next_messages(self) -> list[Message]:
        """The messages since the last call, at least one. Empty: the application has returned or raised."""
        while not self._messages and not self._is_done:
            self._has_news.clear()
            await self._has_news.wait()
        messages, self._messages = self._messages, []
        return messages

    def disconnect(self) -> None:
        """Hang up: the application receives `http.disconnect`, and what it still sends is dropped."""
        self._is_disconnected.set()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._is_disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._is_disconnected.is_set():
            self._messages.append(message)
            self._has_news.set()


async def call(app: ASGIApp, scope: Scope, body: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...], bytes]:
    """The complete response: status, headers, body. Cancelling the task cancels the application."""
    exchange = Exchange(body)
    await exchange.run(app, scope)
    start, *pieces = await exchange.next_messages()
    return start["status"], tuple(start["headers"]), b"".join(piece.get("body", b"") for piece in pieces)


async def post(app: ASGIApp, path: str, body: bytes, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> InProcessAnswer:
    """`POST path` with a JSON body. Cancelling the task aborts the request.

    The application's lifespan must already be running. Header names are in lower case, as ASGI requires.
    """
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ],
        "client": None,
        "server": None,
    }
    status, raw_headers, content = await call(app, scope, body)
    decoded = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw_headers}
    return InProcessAnswer(status=status, headers=decoded, body=content)
