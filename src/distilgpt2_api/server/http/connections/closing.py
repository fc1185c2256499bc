"""How a connection ends after a response: announced with `Connection: close`, and not before the client has read it."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from distilgpt2_api.server.http.requests.head import CLOSE_HEADER

MAX_IGNORED_BODY_BYTES = 1 << 16
"""Up to this length we receive a body that we will not read, to keep the connection."""


def is_long_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the connection ends if the body that these headers announce is not read. Header names in lower case.

    True for a long body, and for one of unknown length.
    """
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            return not value.isdigit() or len(value) > 19 or int(value) > MAX_IGNORED_BODY_BYTES
    return False


def delimit_by_close(cycle: RequestResponseCycle) -> Send:
    """`send` for HTTP/1.0, which has no chunks: a response without a length ends with the connection.

    RFC 9112, section 6.3.
    """
    has_length = False

    async def send(message: Message) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not has_length:
                cycle.chunked_encoding = False
        elif not has_length:
            cycle.expected_content_length = len(message.get("body", b""))  # of this piece: the next sets its own
        await cycle.send(message)  # type: ignore[arg-type]  # Starlette's name for the same dictionaries

    return send


def announce_close(
    cycle: RequestResponseCycle, send: Send, *, is_last: Callable[[], bool], stop_reading: Callable[[], None]
) -> Send:
    """`send` that adds `Connection: close` to the last response, and keeps the connection open while a body arrives.

    Uvicorn would close it at once, and data that still arrives could then destroy the response before the client reads
    it. `is_last`: whether this is the connection's last response. `stop_reading` makes the protocol discard what
    arrives, and close the connection in order.
    """

    async def send_and_announce(message: Message) -> None:
        is_start = message["type"] == "http.response.start"
        if is_start and is_last() and CLOSE_HEADER not in message["headers"]:
            message = {**message, "headers": [*message["headers"], CLOSE_HEADER]}
        await send(message)
        if is_start and not cycle.keep_alive and (cycle.more_body or is_last()):
            stop_reading()
            cycle.keep_alive = True

    return send_and_announce


@contextmanager
def end_at_cancellation(cycle: RequestResponseCycle) -> Iterator[None]:
    """Closes the connection if Uvicorn cancels the application: its shutdown's time is over.

    Uvicorn has logged how many it cancels. It would log each a second time, as an error of the application.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            raise
        cycle.disconnected = True
        cycle.transport.close()
