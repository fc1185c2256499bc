"""One request's answer, as it crosses to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest

MAX_UPDATE_DELTAS = 64
"""Deltas that are handed over at once."""


class RequestStream(AsyncIterator[tuple[SequenceDelta, ...]]):
    """Asynchronous iterator of what came since the last look, so that a slow reader gets fewer, larger pieces.

    Event loop only. Ends when every sequence has ended, or was aborted; raises the error that ended the request.
    What waits here is bounded by the request's own `max_tokens`.
    """

    def __init__(self, request: GenerationRequest, *, abort: Callable[[RequestStream], None]) -> None:
        self.request_id = request.request_id
        self._request = request
        self._num_unfinished = request.num_sequences
        self._num_drawn = [0] * request.num_sequences
        self._abort = abort
        self._deltas: list[SequenceDelta] = []
        self._has_ended = False
        self._error: Distilgpt2ApiError | None = None
        self._changed = asyncio.Event()

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> tuple[SequenceDelta, ...]:
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        if len(self._deltas) <= MAX_UPDATE_DELTAS:
            deltas = tuple(self._deltas)
            self._deltas.clear()
            return deltas
        # Whoever has not read for long gets it in parts, and the loop has air between them: writing down thousands of
        # tokens at once would hold up everybody else's.
        await asyncio.sleep(0)
        deltas = tuple(self._deltas[:MAX_UPDATE_DELTAS])
        del self._deltas[:MAX_UPDATE_DELTAS]
        return deltas

    @property
    def num_unused_tokens(self) -> int:
        """Completion tokens that were asked for and not drawn, as far as is known: what is not streamed may have been
        drawn to the last until its end tells.
        """
        if self._num_unfinished and not self._request.is_streamed:
            return 0
        return len(self._num_drawn) * self._request.params.max_tokens - sum(self._num_drawn)

    @property
    def params(self) -> SamplingParams:
        return self._request.params

    def abort(self) -> None:
        """End the request; its blocks are free within a step. Idempotent, and harmless after the end."""
        if not self._has_ended:
            self._abort(self)

    def push(self, deltas: Sequence[SequenceDelta]) -> bool:
        """Engine's side: hand over deltas. True when the last sequence has ended."""
        self._deltas.extend(deltas)
        for delta in deltas:
            self._num_drawn[delta.index] = delta.num_completion_tokens
            self._num_unfinished -= delta.finish_reason is not None
        self._changed.set()
        return self._num_unfinished == 0

    def end(self, error: Distilgpt2ApiError | None) -> None:
        """Engine's side: no more deltas; `error` is raised once those already here are read."""
        self._has_ended = True
        self._error = error
        self._changed.set()
