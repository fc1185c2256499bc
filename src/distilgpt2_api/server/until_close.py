"""Answers to HTTP/1.0, which knows no chunks: one without a length ends with the connection (RFC 9112, section 6.3)."""

from __future__ import annotations

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def sent_until_close(cycle: RequestResponseCycle) -> Send:
    """`send` of a cycle that closes its connection; Uvicorn's would send chunks."""
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
