"""What a connection may take before it has a request, and when nobody reads at its other end.

Uvicorn bounds neither the time in which a head arrives, nor (with httptools) its size, nor how long an answer may wait
to be read, nor how many connections there are. With httptools it takes what follows a head with `Upgrade` for another.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from distilgpt2_api.server.http import request_head
from distilgpt2_api.server.http.answer_end import sent_before_end, sent_until_close
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.http.ignored_body import is_long_body
from distilgpt2_api.server.http.limits import ConnectionLimits

SEND_BUFFER_BYTES = 128 << 10
"""What the kernel keeps of an answer that is not read (it doubles this for its own books); beyond it, and 64 KiB of
Uvicorn's, the work waits for the reader."""
MAX_FRAMING_RATIO = 16
"""Bytes of chunk sizes and extensions that each byte of a body pays for; beyond, they count as a head does."""


class PipelinedRequestError(Exception):
    """A request has begun before the last one was answered."""


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol within `limits`; see `limited_protocol`. The event loop's only.

    A connection is idle until the head of a request is complete, and again after its answer. Where there are too many
    connections, the one that has been idle longest is closed for the newcomer, or else the one whose body has been on
    its way longest: so a probe always gets through.

    Pipelining is not served: what comes behind an unanswered request is not read, and the connection closes with the
    answer (RFC 9112, section 9.3.2, lets the client send it again). Uvicorn would queue any number of requests, and not
    notice that their client has gone.
    """

    limits: ClassVar[ConnectionLimits]
    errors: ClassVar[ErrorShape]
    """For what is no request that any protocol could answer."""
    idle: ClassVar[OrderedDict[GuardedProtocol, None]]
    """The connections without a request, the longest idle first."""
    uploading: ClassVar[OrderedDict[GuardedProtocol, None]]
    """Those whose request's body is not complete, the longest so first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.app = self._answer
        self._head = b""
        """What has come since the segment in which the head began, until it is complete."""
        self._num_loose_bytes = 0
        """Received since the last that were a whole head or of a body: a head, chunks' sizes or a trailer."""
        self._has_head_begun = False
        self._is_deaf = False
        """What comes is thrown away: only the end of the connection counts."""
        self._refusal: ErrorAnswer | None = None
        """Why we stopped the parser. None: it stopped by itself."""

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
        self._head = self._head + data if self._has_head_begun else data
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._has_ended_reading:
            return
        if self._num_loose_bytes > self.limits.max_header_bytes:
            if self._is_between_requests:
                self._refuse(request_head.too_large(self.limits.max_header_bytes))
            else:
                self.transport.abort()  # chunks or a trailer without an end; an answer may be under way
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
            raise PipelinedRequestError  # the parser stops
        self._has_head_begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Uvicorn would add a trailer to the headers, where it could pass for what a proxy in front says of the client.
        if self._has_head_begun:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # `_read_without_upgrade` comes
            return
        self._has_head_begun = False
        self._num_loose_bytes = 0
        self._cancel_head_timer()
        # With ": " and the end of the line.
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > self.limits.max_header_bytes:
            self._stop(request_head.too_large(self.limits.max_header_bytes))
        line_begins = self.parser.get_method() + b" " + self.url + b" "
        if not self._head.partition(line_begins)[2].startswith(b"HTTP/1."):  # the parser takes RTSP and others, too
            self._stop(request_head.BAD_VERSION)
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1: such a client does not know that answer
        self._head = b""
        self._leave_lists()
        super().on_headers_complete()
        self.uploading[self] = None

    def on_body(self, body: bytes) -> None:
        self._num_loose_bytes = max(0, self._num_loose_bytes - (1 + MAX_FRAMING_RATIO) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
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

    # ---- what is read

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._refuse(self._refusal or request_head.describe_unparsed(self._head))

    def _read_without_upgrade(self, rest: bytes) -> None:
        """The request asks for another protocol, and gets its answer in this one.

        The parser can't be told so: it leaves the body to the other one. A new parser gets the head without that wish.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(request_head.TUNNEL)
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn's own
        self._parse(request_head.head_without_upgrade(method, self.url, version, self.headers) + rest)

    def _stop(self, refusal: ErrorAnswer) -> None:
        self._refusal = refusal
        raise ValueError(refusal.message)  # the parser stops

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, for Uvicorn's cycle."""
        if scope["http_version"] == "1.0":
            send = sent_until_close(self.cycle)
        send = sent_before_end(self.cycle, send, is_last=lambda: self._is_deaf, stop_reading=self._stop_reading)
        await self.config.loaded_app(scope, receive, send)

    def _stop_reading(self) -> None:
        self._is_deaf = True

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

    def _refuse(self, answer: ErrorAnswer) -> None:
        """Answer what is no request, or no whole one, and end the connection."""
        if not self._is_between_requests:
            if self.cycle.response_started:
                self.transport.abort()  # in the middle of it another answer would be read as its part
                return
            self.cycle.disconnected = True  # for the application the client has gone
            self.cycle.message_event.set()
        body = self.errors.body(answer)
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers = [*self.server_state.default_headers, *answer.raw_headers, *own]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[self.errors.status(answer)] + head + b"\r\n" + body)
        self._end_unread()
        self._expect_reader()


def limited_protocol(limits: ConnectionLimits, errors: ErrorShape) -> Callable[..., asyncio.Protocol]:
    """The protocol class of one server: the connections that it makes are counted together."""
    return type(
        "LimitedProtocol",
        (GuardedProtocol,),
        {"limits": limits, "errors": errors, "idle": OrderedDict(), "uploading": OrderedDict()},
    )
