"""What a connection may take before it has a request, and when nobody reads at its other end.

Uvicorn bounds neither the time in which a head arrives, nor (with httptools) its size, nor how long an answer may wait
to be read, nor how many connections there are.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from distilgpt2_api.server.errors import INVALID, ErrorAnswer
from distilgpt2_api.server.ignored_body import is_long_body

SEND_BUFFER_BYTES = 128 << 10
"""What the kernel keeps of an answer that is not read (it doubles this for its own books); beyond it, and 64 KiB of
Uvicorn's, the work waits for the reader."""
BAD_REQUEST = ErrorAnswer(status=400, message="this is no valid HTTP request", type=INVALID)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Settings of the same names; times in seconds."""

    header_timeout_s: float
    max_header_bytes: int
    write_timeout_s: float
    max_connections: int


class PipelinedRequestError(Exception):
    """A request has begun before the last one was answered."""


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol within `limits`; see `guarded_by`. The event loop's only.

    A connection is idle until the head of a request is complete, and again after its answer. Where there are too many
    connections, the one that has been idle longest is closed for the newcomer, or else the one whose body has been on
    its way longest: so a probe always gets through.

    Pipelining is not served: what comes behind an unanswered request is not read, and the connection closes with the
    answer (RFC 9112, section 9.3.2, lets the client send it again). Uvicorn would queue any number of requests, and not
    notice that their client has gone.
    """

    limits: ClassVar[ConnectionLimits]
    idle: ClassVar[OrderedDict[GuardedProtocol, None]]
    """The connections without a request, the longest idle first."""
    uploading: ClassVar[OrderedDict[GuardedProtocol, None]]
    """Those whose request's body is not complete, the longest so first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._num_loose_bytes = 0
        """Received since the last that were a whole head or of a body: a head or a trailer that is not complete."""
        self._has_head_begun = False
        self._is_deaf = False
        """What comes is thrown away: only the end of the connection counts."""
        self._refusal = BAD_REQUEST

    # ---- asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as Uvicorn has it
        super().connection_made(transport)
        # Left to itself the kernel keeps megabytes for a client that does not read, and says of none that it waits.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.idle[self] = None
        self._expect_head()
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_lists()
        self._cancel_head_timer()
        self._cancel_write_timer()
        # Where the connection broke, Uvicorn leaves its timer to run on, and the connection in memory with it.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._num_loose_bytes += len(data)
        super().data_received(data)
        if self._has_ended_reading:
            return
        if self._num_loose_bytes > self.limits.max_header_bytes:
            if self._is_between_requests:
                self._refuse(self._too_large())
            else:
                self.transport.abort()  # a trailer without an end; an answer may be under way
        elif self._is_between_requests and self._head_timer is None:
            # Whatever came, it was no whole head: what is left of it must not take for ever to come.
            self._expect_head()

    def pause_writing(self) -> None:
        """More waits to be read than we keep for anybody."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        super().resume_writing()

    # ---- the parser's callbacks

    def on_message_begin(self) -> None:
        if not self._is_between_requests:
            self._is_deaf = True
            raise PipelinedRequestError  # the parser stops, and `send_400_response` is called
        self._has_head_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._has_head_begun = False
        self._num_loose_bytes = 0
        self._cancel_head_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.max_header_bytes:
            self._refusal = self._too_large()
            raise ValueError(self._refusal.message)  # as above
        self._leave_lists()
        super().on_headers_complete()
        self.uploading[self] = None

    def on_body(self, body: bytes) -> None:
        self._num_loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_loose_bytes = 0
        self.uploading.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._num_loose_bytes = 0
        if self.transport.is_closing():
            self._expect_reader()  # of what is still to be written
        elif self._is_deaf or (self.cycle.more_body and is_long_body(self.cycle.scope["headers"])):
            self._end_unread()
        elif self._is_between_requests:
            self._leave_lists()
            self.idle[self] = None
            # With what came behind the last request, or behind the rest of a body that the answer did not wait for.
            if self._has_head_begun or self.cycle.more_body:
                self._expect_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - Uvicorn's signature
        if not self._is_deaf:
            self._refuse(self._refusal)

    # ---- the limits

    @property
    def _has_ended_reading(self) -> bool:
        return self._is_deaf or self.transport.is_closing()

    @property
    def _is_between_requests(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # Uvicorn's annotation leaves the None out
        return cycle is None or cycle.response_complete

    def _make_room(self) -> None:
        if len(self.idle) > 1 or not self.uploading:
            oldest, _ = self.idle.popitem(last=False)
        else:  # nobody is idle but the newcomer
            oldest, _ = self.uploading.popitem(last=False)
        oldest.transport.abort()

    def _leave_lists(self) -> None:
        self.idle.pop(self, None)
        self.uploading.pop(self, None)

    def _expect_head(self) -> None:
        self._cancel_head_timer()
        self._head_timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.abort)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expect_reader(self) -> None:
        if self._write_timer is None and self in self.connections:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self._cut)

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _cut(self) -> None:
        self.logger.warning("a client did not read its answer for %g s: cut", self.limits.write_timeout_s)
        self.transport.abort()

    def _end_unread(self) -> None:
        """Answered before the body had come, or with another request behind it: what comes now is nobody's to read.

        Our side of the connection ends behind the answer. Closing both at once could take the answer from the client.
        """
        self._is_deaf = True
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._expect_head()  # a client that does not end its own side has a head's time
        else:
            self.transport.close()

    def _too_large(self) -> ErrorAnswer:
        message = f"the request's head is longer than {self.limits.max_header_bytes} bytes"
        return ErrorAnswer(status=431, message=message, type=INVALID, code="headers_too_large")

    def _refuse(self, answer: ErrorAnswer) -> None:
        """Answer what is no request, and close."""
        body = answer.openai_body
        head = [STATUS_LINE[answer.status]]
        head += [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        head += [
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()
        self._expect_reader()


def guarded_by(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """The protocol class of one server: the connections that it makes are counted together."""
    return type(
        "LimitedProtocol", (GuardedProtocol,), {"limits": limits, "idle": OrderedDict(), "uploading": OrderedDict()}
    )
