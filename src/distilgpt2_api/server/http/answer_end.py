"""Answers that end their connection, which Uvicorn would do too early, or in chunks."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from distilgpt2_api.server.http.request_head import CLOSE_HEADER


def sent_until_close(cycle: RequestResponseCycle) -> Send:
    """`send` for HTTP/1.0, which knows no chunks: what has no length ends with the connection (RFC 9112, 6.3)."""
    has_length = False

    async def send(message: Message) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not has_length:
                cycle.chunked_encoding = False
        elif not has_length:
            cycle.expected_content_length = len(message.get("body", b""))  # of this piece: the next has its own
        await cycle.send(message)  # type: ignore[arg-type]  # Starlette's name for the same dictionaries

    return send


def sent_before_end(
    cycle: RequestResponseCycle, send: Send, *, is_last: Callable[[], bool], stop_reading: Callable[[], None]
) -> Send:
    """`send` that says so where the connection ends, and leaves it open where something is not read yet.

    Uvicorn would close it at once, and what still comes then could take the answer from the client. `is_last`: nothing
    more is served here. `stop_reading` makes the protocol throw away what comes, and end the connection in order.
    """

    async def send_before_end(message: Message) -> None:
        is_start = message["type"] == "http.response.start"
        if is_start and is_last() and CLOSE_HEADER not in message["headers"]:
            message = {**message, "headers": [*message["headers"], CLOSE_HEADER]}
        await send(message)
        if is_start and not cycle.keep_alive and (cycle.more_body or is_last()):
            stop_reading()
            cycle.keep_alive = True

    return send_before_end
