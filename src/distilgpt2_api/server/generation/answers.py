"""From a running generation and a writer to an HTTP response: one JSON body, or a stream of events."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from distilgpt2_api.server.generation.generation import Generation, PromptDeltas
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.responses.responses import DeferredJsonResponse, EventStream, Headers
from distilgpt2_api.server.http.responses.stream_formats import SSE, StreamFormat


class JsonWriter(Protocol):
    def collect(self, update: Iterable[PromptDeltas]) -> None: ...

    def body(self) -> bytes: ...


class EventWriter(Protocol):
    def events(self, update: Iterable[PromptDeltas]) -> bytes: ...

    def last_events(self) -> bytes: ...


def json_answer(
    source: Generation, writer: JsonWriter, *, make_headers: Callable[[], Headers] = list
) -> DeferredJsonResponse:
    """One JSON body when the generation is complete."""

    async def collect() -> None:
        async with aclosing(source.updates()) as updates:
            async for update in updates:
                writer.collect(update)

    return DeferredJsonResponse(collect, writer.body, abort=source.abort, make_headers=make_headers)


def event_answer(
    source: Generation, writer: EventWriter, *, errors: ErrorShape, stream_format: StreamFormat = SSE
) -> EventStream:
    """Events for each update, then the last ones. If the generation fails midway, `errors` has the last."""

    async def events() -> AsyncGenerator[bytes]:
        async with aclosing(source.updates()) as updates:
            async for update in updates:
                yield writer.events(update)

    stream = EventStream(events, writer.last_events, abort=source.abort, errors=errors, stream_format=stream_format)

    def write_directly(update: list[PromptDeltas]) -> bool:
        if not stream.can_write_directly:
            return False
        stream.write_directly(writer.events(update))
        return True

    source.write_directly = write_directly
    return stream
