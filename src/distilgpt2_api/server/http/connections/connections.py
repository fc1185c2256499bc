"""Limits on connections: the time and size of a request's head, slow readers, and the number of connections.

Uvicorn has none of these limits with httptools, and leaves everything after a head with `Upgrade` to another protocol.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any, ClassVar

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from distilgpt2_api.server.http.connections import closing
from distilgpt2_api.server.http.connections.unix_peer import name_unix_peer
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.http.limits import ConnectionLimits
from distilgpt2_api.server.http.requests import head as request_head
from distilgpt2_api.server.http.responses.body_writer import offer_body_writer

SEND_BUFFER_BYTES = 128 << 10
"""The kernel's buffer for a response that the client has not read (Linux doubles the value for its own overhead). If it
and Uvicorn's 64 KiB are full, the application waits for the client."""
MAX_FRAMING_RATIO = 16
"""Bytes of chunk sizes and extensions that are allowed per byte of body; bytes beyond count towards a head's limit."""


class PipelinedRequestError(Exception):
    """A request began before the response to the previous one was complete."""


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with `limits`; `limited_protocol` makes its subclasses. For the event loop only.

    A connection is idle until a request's head is complete, and again after the response. If there are too many
    connections, a new one closes the connection that has been idle longest, or else the one that has been uploading
    longest. Probes therefore always get a connection.

    Pipelining is not supported: a request behind an unanswered one is not read, and the connection closes after the
    response (RFC 9112, section 9.3.2, lets the client send it again). Uvicorn would queue any number of requests, and
    would not notice that their client has disconnected.
    """

    limits: ClassVar[ConnectionLimits]
    errors: ClassVar[ErrorShape]
    """The shape of errors for data that is not a valid HTTP request."""
    idle: ClassVar[OrderedDict[GuardedProtocol, None]]
    """Connections without a request, the longest idle first."""
    uploading: ClassVar[OrderedDict[GuardedProtocol, None]]
    """Connections on which a body is arriving, the longest first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.app = self._answer
        self._head = b""
        """Received since the segment in which the head began. Empty once the head is complete."""
        self._num_unparsed_bytes = 0
        """Received bytes that are not yet a complete head or part of a body: a head, chunk sizes or a trailer."""
        self._has_head_begun = False
        self._is_discarding = False
        """Received data is discarded: we only wait for the client to close the connection."""
        self._refusal: ErrorAnswer | None = None
        """Why we stopped the parser. None if it stopped on an error of its own."""

    # ---- asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as Uvicorn has it
        super().connection_made(transport)
        self.client = self.client or name_unix_peer(transport)
        # By default the kernel buffers megabytes for a client that does not read, and we would not notice.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.idle[self] = None
        self._start_head_timer()
        if len(self.connections) > self.limits.max_connections:
            self._close_oldest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_queues()
        self._stop_head_timer()
        self._stop_write_timer()
        # If the connection broke, Uvicorn leaves its timer running, which keeps the connection in memory.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_discarding:
            return
        self._num_unparsed_bytes += len(data)
        self._head = self._head + data if self._has_head_begun else data
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._has_ended_reading:
            return
        if self._num_unparsed_bytes > self.limits.max_header_bytes:
            if self._is_between_requests:
                self._refuse(request_head.too_large(self.limits.max_header_bytes))
            else:
                self.transport.abort()  # endless chunks or trailer; a response may have begun
        elif self._is_between_requests and self._head_timer is None:
            # The head is incomplete: its rest must arrive in time.
            self._start_head_timer()

    def pause_writing(self) -> None:
        """The buffers are full: the client must read in time."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    # ---- the parser's callbacks

    def on_message_begin(self) -> None:
        if not self._is_between_requests:
            self._is_discarding = True
            raise PipelinedRequestError  # the parser stops
        self._has_head_begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Uvicorn would add a trailer to the headers, where it could impersonate a proxy's header about the client.
        if self._has_head_begun:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # `_read_without_upgrade` follows
            return
        self._has_head_begun = False
        self._num_unparsed_bytes = 0
        self._stop_head_timer()
        # Each header's ": " and line end are 4 bytes.
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > self.limits.max_header_bytes:
            self._stop_parser(request_head.too_large(self.limits.max_header_bytes))
        line_begins = self.parser.get_method() + b" " + self.url + b" "
        if not self._head.partition(line_begins)[2].startswith(b"HTTP/1."):  # the parser accepts RTSP and others, too
            self._stop_parser(request_head.BAD_VERSION)
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1: HTTP/1.0 has no 100
        self._head = b""
        self._leave_queues()
        super().on_headers_complete()
        self.uploading[self] = None

    def on_body(self, body: bytes) -> None:
        self._num_unparsed_bytes = max(0, self._num_unparsed_bytes - (1 + MAX_FRAMING_RATIO) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._num_unparsed_bytes = 0
        self.uploading.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._num_unparsed_bytes = 0
        if self.transport.is_closing():
            self._start_write_timer()  # for the rest of the response
        elif self._is_discarding or (self.cycle.more_body and closing.is_long_body(self.cycle.scope["headers"])):
            self._close_after_response()
        elif self._is_between_requests:
            self._leave_queues()
            self.idle[self] = None
            # The next head has begun, or the rest of a body that the response did not wait for is still to come.
            if self._has_head_begun or self.cycle.more_body:
                self._start_head_timer()

    # ---- parsing

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._is_discarding:
                self._refuse(self._refusal or request_head.describe_unparsed(self._head))

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Serve a request that asks for another protocol in this one.

        The parser would leave the body to the other protocol, so a new parser gets the head without `Upgrade`.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(request_head.TUNNEL)
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn sets it
        self._parse(request_head.head_without_upgrade(method, self.url, version, self.headers) + rest)

    def _stop_parser(self, refusal: ErrorAnswer) -> None:
        self._refusal = refusal
        raise ValueError(refusal.message)  # the parser stops

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application that Uvicorn calls."""
        if scope["http_version"] == "1.0":
            send = closing.delimit_by_close(self.cycle)
        offer_body_writer(scope, self.cycle)
        send = closing.announce_close(
            self.cycle, send, is_last=lambda: self._is_discarding, stop_reading=self._stop_reading
        )
        with closing.end_at_cancellation(self.cycle):
            await self.config.loaded_app(scope, receive, send)

    def _stop_reading(self) -> None:
        self._is_discarding = True

    # ---- limits

    @property
    def _has_ended_reading(self) -> bool:
        return self._is_discarding or self.transport.is_closing()

    @property
    def _is_between_requests(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # Uvicorn's annotation lacks the None
        return cycle is None or cycle.response_complete

    def _close_oldest(self) -> None:
        if len(self.idle) > 1 or not self.uploading:
            oldest, _ = self.idle.popitem(last=False)
        else:  # only the new connection is idle
            oldest, _ = self.uploading.popitem(last=False)
        oldest.transport.abort()

    def _leave_queues(self) -> None:
        self.idle.pop(self, None)
        self.uploading.pop(self, None)

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _start_write_timer(self) -> None:
        if self._write_timer is None and self in self.connections:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self._abort_slow_reader)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _abort_slow_reader(self) -> None:
        self.logger.warning("connection closed: the client did not read for %g s", self.limits.write_timeout_s)
        self.transport.abort()

    def _close_after_response(self) -> None:
        """Close our side after the response, and discard what still arrives: the rest of a body, or another request.

        Closing both sides at once could destroy the response before the client reads it.
        """
        self._is_discarding = True
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():  # TLS can't: our client then ends the connection, as the response tells it
            self.transport.write_eof()
        self._start_head_timer()  # the client has a head's time to close its side

    def _refuse(self, answer: ErrorAnswer) -> None:
        """Answer an invalid or incomplete request, and end the connection."""
        if not self._is_between_requests:
            if self.cycle.response_started:
                self.transport.abort()  # a second response would be read as part of the first
                return
            self.cycle.disconnected = True  # the application sees a disconnect
            self.cycle.message_event.set()
        body = self.errors.body(answer)
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers = [*self.server_state.default_headers, *answer.raw_headers, *own]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[self.errors.status(answer)] + head + b"\r\n" + body)
        self._close_after_response()
        self._start_write_timer()


def limited_protocol(limits: ConnectionLimits, errors: ErrorShape) -> type[GuardedProtocol]:
    """The protocol class of one server, whose connections share the limits.

    `errors`: the shape of errors for data that is not a valid HTTP request.
    """
    return type(
        "LimitedProtocol",
        (GuardedProtocol,),
        {"limits": limits, "errors": errors, "idle": OrderedDict(), "uploading": OrderedDict()},
    )
