"""The application asked from within its own process: every route as HTTP has it, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The service can't take the request now, though nothing may be wrong with it."""

    code: str
    message: str
    retry_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessAnswer:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def post(app: ASGIApp, path: str, body: bytes, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> InProcessAnswer:
    """`POST path` with a body of JSON. To cancel the task is to hang up: the work for it ends.

    The application's lifespan must run already. Names of headers are in lower case, as ASGI has them.
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
    exchange = Exchange(body)
    await app(scope, exchange.receive, exchange.send)
    return exchange.answer()


class Exchange:
    """One request's two directions: the body in one piece, then silence; the answer's pieces."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is None:
            await asyncio.get_running_loop().create_future()  # nobody hangs up; whoever waits for it is cancelled
        message = {"type": "http.request", "body": self._body, "more_body": False}
        self._body = None
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._pieces.append(message.get("body", b""))

    def answer(self) -> InProcessAnswer:
        assert self._start is not None, "an application answers, or raises"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._start["headers"]}
        return InProcessAnswer(status=self._start["status"], headers=headers, body=b"".join(self._pieces))
