"""Responses that wait for the engine: one JSON body, or a stream. Both abort the generation on a disconnect."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import describe_error
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.responses.body_writer import BodyWriter, find_body_writer
from distilgpt2_api.server.http.responses.stream_formats import SSE, StreamFormat

logger = logging.getLogger(__name__)

PING_INTERVAL_S = 15.0
"""Shorter than the idle timeouts of common proxies (nginx: 60 s, Azure Load Balancer: 230 s)."""

Headers = list[tuple[bytes, bytes]]
"""As in ASGI: names are in lower case."""
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


class DeferredJsonResponse(Response):
    """One JSON body, which `make_body` returns after `work`. An error of `work` becomes a status.

    If the client disconnects, `abort` ends the work, and no body is made. `make_headers` are added to our own.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        make_body: Callable[[], bytes],
        *,
        abort: Callable[[], None],
        make_headers: Callable[[], Headers] = list,
    ) -> None:
        super().__init__()
        self._work = work
        self._make_body = make_body
        self._abort = abort
        self._make_headers = make_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with DisconnectWatcher(receive, on_disconnect=self._abort) as client:
            try:
                await self._work()
            except Distilgpt2ApiError:
                if not client.is_disconnected:
                    raise
            finally:
                request_record(scope).is_disconnect = client.is_disconnected
        if client.is_disconnected:
            return
        body = self._make_body()
        headers = [*JSON_HEADERS, (b"content-length", str(len(body)).encode()), *self._make_headers()]
        if (timing := _server_timing(request_record(scope))) is not None:
            headers.append((b"server-timing", timing))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _server_timing(record: RequestRecord) -> bytes | None:
    """The value of `Server-Timing` (W3C), with durations in milliseconds. None: the engine computed nothing."""
    timings, rate = record.timings, record.tokens_per_s
    if timings is None:
        return None
    phases = {"queue": timings.queue_s, "prefill": timings.prefill_s, "decode": timings.decode_s}
    value = ", ".join(f"{name};dur={1000 * phase_s:.3f}" for name, phase_s in phases.items() if phase_s is not None)
    return (value if rate is None else f'{value};desc="{rate:.1f} tokens/s"').encode()


class EventStream(Response):
    """A streamed response. Each piece of `events` is one or more complete events, written at once.

    `last_events` end the stream. The status goes out with the first piece, or with the first ping after a quiet
    interval. An error before it becomes a status; an error after it becomes the last event, as `errors` has it.
    """

    def __init__(
        self,
        events: Callable[[], AsyncGenerator[bytes]],
        last_events: Callable[[], bytes] = bytes,
        *,
        abort: Callable[[], None],
        errors: ErrorShape,
        stream_format: StreamFormat = SSE,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        super().__init__()
        self._events = events
        self._last_events = last_events
        self._abort = abort
        self._errors = errors
        self._format = stream_format
        self._ping_interval_s = ping_interval_s
        self._is_quiet = True
        self._has_begun = False
        self._beginning = asyncio.Lock()
        self._body_writer: BodyWriter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = request_record(scope)
        record.is_streamed = True
        self._body_writer = find_body_writer(scope)
        events = self._events()
        # Close the generator here, not when it is garbage-collected: its `finally` frees the KV blocks.
        async with aclosing(events):
            with DisconnectWatcher(receive, on_disconnect=self._abort) as client:
                pings = asyncio.create_task(self._ping(send, self._format.ping)) if self._format.ping else None
                try:
                    async for piece in events:
                        if client.is_disconnected:
                            return
                        self._is_quiet = False
                        await self._write(send, piece)
                    if client.is_disconnected:
                        return
                    await self._write(send, self._last_events())
                except Exception as error:
                    if client.is_disconnected and isinstance(error, Distilgpt2ApiError):
                        return
                    if not self._has_begun:
                        raise
                    answer = describe_error(error)
                    record.error_code = answer.code or answer.type
                    if answer.status == 500:
                        logger.exception("a stream failed", extra={"request_id": record.request_id})
                    await self._write(send, self._errors.last_event(answer))
                finally:
                    record.is_disconnect = client.is_disconnected
                    if pings is not None:
                        pings.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def can_write_directly(self) -> bool:
        """Whether the stream has begun and its connection takes more bytes at once. Only our own server can tell."""
        return self._has_begun and self._body_writer is not None and self._body_writer.is_ready

    def write_directly(self, piece: bytes) -> None:
        """Write a piece now. Allowed if `can_write_directly`, while nothing else of `events` is being written."""
        assert self._body_writer is not None
        self._is_quiet = False
        if piece:
            self._body_writer.write(piece)

    async def _ping(self, send: Send, ping: bytes) -> None:
        """Write a ping after each interval without another write."""
        while True:
            self._is_quiet = True
            await asyncio.sleep(self._ping_interval_s)
            if self._is_quiet:
                await self._write(send, ping)

    async def _begin(self, send: Send) -> None:
        async with self._beginning:  # a ping may be starting it
            if not self._has_begun:
                await send({"type": "http.response.start", "status": 200, "headers": self._format.headers})
                self._has_begun = True

    async def _write(self, send: Send, piece: bytes) -> None:
        if not self._has_begun:
            await self._begin(send)
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})


class DisconnectWatcher:
    """Watches for a disconnect while the response is made; a context manager.

    All servers report a disconnect through `receive`; in `send` they differ. The request's body must have been read.
    `on_disconnect` is called once, on the event loop.
    """

    def __init__(self, receive: Receive, *, on_disconnect: Callable[[], None]) -> None:
        self._receive = receive
        self._on_disconnect = on_disconnect
        self._task: asyncio.Task[None] | None = None
        self.is_disconnected = False

    def __enter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_disconnected = True
        self._on_disconnect()
