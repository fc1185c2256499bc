"""From work, and who writes it down, to an answer: whole, or event by event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.http.responses import EventStream, WhenDone
from distilgpt2_api.server.http.sse import error_event


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
    work: Work, writer: EventWriter, *, error_event: Callable[[ErrorAnswer], bytes] = error_event
) -> EventStream:
    """Events as the work hands over, then the last ones; `error_event` is the last one where it fails midway."""

    async def events() -> AsyncGenerator[bytes]:
        async with aclosing(work.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                yield writer.events(hand_over)

    return EventStream(events, writer.last_events, abort=work.abort, error_event=error_event)
