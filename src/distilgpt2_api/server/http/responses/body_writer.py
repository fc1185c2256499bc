"""Writes pieces of a streamed body without the event loop's help: an ASGI extension of our own server.

ASGI's `send` is a coroutine, so only a task can call it. To wake a stream's task for each token, and to pass each token
through a dozen coroutines, costs more than to write it.
"""

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "distilgpt2_api.body_writer"


class BodyWriter:
    """Writes to one response. For the event loop only."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def is_ready(self) -> bool:
        """Whether a chunked response has begun and the connection takes more bytes at once."""
        cycle = self._cycle
        return (
            cycle.response_started
            and bool(cycle.chunked_encoding)
            and not (cycle.response_complete or cycle.disconnected or cycle.flow.write_paused)
        )

    def write(self, piece: bytes) -> None:
        """Write a piece as one chunk. It must not be empty, and the writer must be ready."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def offer_body_writer(scope: Scope, cycle: RequestResponseCycle) -> None:
    scope.setdefault("extensions", {})[EXTENSION] = BodyWriter(cycle)


def find_body_writer(scope: Scope) -> BodyWriter | None:
    """None under another server."""
    writer: BodyWriter | None = scope.get("extensions", {}).get(EXTENSION)
    return writer
