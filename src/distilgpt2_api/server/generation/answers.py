"""From work, and who writes it down, to an answer: whole, or event by event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.responses import EventStream, WhenDone
from distilgpt2_api.server.http.stream_formats import SSE, StreamFormat


class Work(Protocol):
    """A `Generation`, or what is built on one. Not yet begun."""

    def hand_overs(self) -> AsyncGenerator[list[PromptDeltas]]: ...

    def abort(self) -> None: ...


class WholeWriter(Protocol):
    def collect(self, hand_over: Iterable[PromptDeltas]) -> None: ...

    def body(self) -> bytes: ...


class EventWriter(Protocol):
    def events(self, hand_over: Iterable[PromptDeltas]) -> bytes: ...

    def last_events(self) -> bytes: ...


def write_whole(work: Work, writer: WholeWriter) -> WhenDone:
    """One JSON body when all is done."""

    async def collect() -> None:
        async with aclosing(work.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                writer.collect(hand_over)

    return WhenDone(collect, writer.body, abort=work.abort)


def write_events(
    work: Work, writer: EventWriter, *, errors: ErrorShape, stream_format: StreamFormat = SSE
) -> EventStream:
    """Events as the work hands over, then the last ones. If it fails midway, `errors` has the last event."""

    async def events() -> AsyncGenerator[bytes]:
        async with aclosing(work.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                yield writer.events(hand_over)

    return EventStream(events, writer.last_events, abort=work.abort, errors=errors, stream_format=stream_format)
