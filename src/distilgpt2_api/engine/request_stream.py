"""The stream of one request's output on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest

MAX_UPDATE_DELTAS = 64
"""Maximum deltas returned at once."""


class RequestStream(AsyncIterator[tuple[SequenceDelta, ...]]):
    """Asynchronous iterator over a request's deltas. Each item has those since the last one, so a slow reader gets
    larger pieces.

    Ends when every sequence has ended or was aborted. Raises the error that ended the request. Pending deltas are
    bounded by the request's `max_tokens`. Event loop only.
    """

    def __init__(self, request: GenerationRequest, *, abort: Callable[[RequestStream], None]) -> None:
        self.request_id = request.request_id
        self.num_sequences = request.num_sequences
        self._request = request
        self._num_unfinished = request.num_sequences
        self._num_drawn = [0] * request.num_sequences
        self._abort = abort
        self._deltas: list[SequenceDelta] = []
        self._has_ended = False
        self._error: Distilgpt2ApiError | None = None
        self._changed = asyncio.Event()
        self._is_awaited = False
        """The reader has read everything and waits for more."""
        self.take_directly: Callable[[Sequence[SequenceDelta]], bool] | None = None
        """Called with new deltas before the reader that waits for them: waking it costs more than they do. Returns
        whether it took them; if not, the reader gets them."""

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> tuple[SequenceDelta, ...]:
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                raise StopAsyncIteration
            self._changed.clear()
            self._is_awaited = True
            try:
                await self._changed.wait()
            finally:
                self._is_awaited = False
        if len(self._deltas) <= MAX_UPDATE_DELTAS:
            deltas = tuple(self._deltas)
            self._deltas.clear()
            return deltas
        # A slow reader gets its backlog in parts, and other tasks run in between: serializing thousands of tokens at
        # once would delay every other stream.
        await asyncio.sleep(0)
        deltas = tuple(self._deltas[:MAX_UPDATE_DELTAS])
        del self._deltas[:MAX_UPDATE_DELTAS]
        return deltas

    @property
    def num_unused_tokens(self) -> int:
        """Requested completion tokens that were not sampled. A request that is not streamed reports its tokens only at
        its end, and is taken to use all of them until then.
        """
        if self._num_unfinished and not self._request.is_streamed:
            return 0
        return len(self._num_drawn) * self._request.params.max_tokens - sum(self._num_drawn)

    @property
    def params(self) -> SamplingParams:
        return self._request.params

    def abort(self) -> None:
        """End the request. Its blocks are free within a step. Idempotent, and without effect after the end."""
        if not self._has_ended:
            self._abort(self)

    def push(self, deltas: Sequence[SequenceDelta]) -> bool:
        """Called by the engine: add deltas. Returns True when the last sequence has ended."""
        for delta in deltas:
            self._num_drawn[delta.index] = delta.num_completion_tokens
            self._num_unfinished -= delta.finish_reason is not None
        if not self._take_directly(deltas):
            self._deltas.extend(deltas)
            self._changed.set()
        return self._num_unfinished == 0

    def _take_directly(self, deltas: Sequence[SequenceDelta]) -> bool:
        if self.take_directly is None or not self._is_awaited or self._deltas or len(deltas) > MAX_UPDATE_DELTAS:
            return False
        return self.take_directly(deltas)

    def end(self, error: Distilgpt2ApiError | None) -> None:
        """Called by the engine: no deltas follow. `error` is raised after the pending ones are read."""
        self._has_ended = True
        self._error = error
        self._changed.set()
