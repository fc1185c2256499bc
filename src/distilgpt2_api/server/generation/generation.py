"""One HTTP request's work in the engine: a generation request for each of its prompts, read as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from distilgpt2_api.core.caller import Caller
from distilgpt2_api.core.errors import DeadlineExceededError, GenerationError, InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import NOTHING_TO_DRAW
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.request_stream import RequestStream
from distilgpt2_api.server.http.request_record import RequestRecord

PromptDeltas = tuple[int, tuple[SequenceDelta, ...]]
"""Index of the prompt, and what its sequences gained."""


class Generation:
    """Submits on the first look, all prompts or none; whatever ends the iteration aborts what still runs."""

    def __init__(self, engine: AsyncEngine, requests: Sequence[GenerationRequest], record: RequestRecord) -> None:
        self._engine = engine
        self._requests = requests
        self._record = record
        self._streams: list[RequestStream] = []
        self._is_aborted = False
        self._unfinished: dict[tuple[int, int], int] = {}
        """Prompt and sequence to completion tokens so far, for those that may never tell their end."""

    def abort(self) -> None:
        """Nobody wants it any more: the iteration ends. Idempotent, and legal before it began."""
        self._is_aborted = True
        for stream in self._streams:
            stream.abort()

    async def updates(self) -> AsyncGenerator[list[PromptDeltas]]:
        """What is new, as often as the engine hands over. Raises what the engine refuses or fails with.

        Finish reasons are `stop` or `length`: a sequence that ended otherwise raises DeadlineExceededError,
        InvalidRequestError (nothing to draw) or GenerationError, except after `abort`.
        """
        try:
            if self._is_aborted:
                return
            check_num_prompts(len(self._requests), self._record.caller)
            self._streams = self._engine.submit_all(self._requests, caller=self._record.caller)
            self._record.admit(sum(request.num_sequences for request in self._requests))
            merged = _only(self._streams[0]) if len(self._streams) == 1 else _merge(self._streams)
            async with aclosing(merged):
                async for update in merged:
                    for prompt_index, deltas in update:
                        self._check(prompt_index, deltas)
                    if self._is_aborted:  # what a client left unread nobody need write down
                        return
                    yield update
        finally:
            self.abort()
            self._record.num_completion_tokens += sum(self._unfinished.values())

    def _check(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> None:
        for delta in deltas:
            if delta.finish_reason is None:
                self._unfinished[prompt_index, delta.index] = delta.num_completion_tokens
                continue
            self._unfinished.pop((prompt_index, delta.index), None)
            self._record.note(delta)
            check_end(delta, is_aborted=self._is_aborted)


def check_num_prompts(num_prompts: int, caller: Caller) -> None:
    """Raise InvalidRequestError for more than the caller may ever have in flight: no use in coming back later."""
    max_requests = caller.limits.max_requests
    if max_requests is not None and num_prompts > max_requests:
        raise InvalidRequestError(f"{num_prompts} prompts in one request; you may have {max_requests} in flight")


def check_end(delta: SequenceDelta, *, is_aborted: bool) -> None:
    """Raise for a sequence that ended otherwise than by `stop` or `length`; `is_aborted`: an abort is our own.

    DeadlineExceededError, InvalidRequestError (nothing to draw) or GenerationError.
    """
    if delta.finish_reason is FinishReason.ABORT and not is_aborted:
        raise DeadlineExceededError("the request was not done before its deadline")
    if delta.error == NOTHING_TO_DRAW:
        raise InvalidRequestError(
            "no token is left to draw: together, what the request bans and what it allows rule out all of them"
        )
    if delta.finish_reason is FinishReason.ERROR:
        raise GenerationError("the completion failed")


async def _only(stream: RequestStream) -> AsyncGenerator[list[PromptDeltas]]:
    async for deltas in stream:
        yield [(0, deltas)]


async def _merge(streams: Sequence[RequestStream]) -> AsyncGenerator[list[PromptDeltas]]:
    """All streams' deltas; those that came together stay together."""
    arrived: asyncio.Queue[PromptDeltas | End] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(index, stream, arrived)) for index, stream in enumerate(streams)]
    num_open = len(pumps)
    try:
        while num_open:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            ends = [item for item in batch if isinstance(item, End)]
            num_open -= len(ends)
            if update := [item for item in batch if not isinstance(item, End)]:
                yield update
            for end in ends:
                if end.error is not None:
                    raise end.error
    finally:
        for pump in pumps:
            pump.cancel()


@dataclass(frozen=True, slots=True)
class End:
    """One of several streams has ended, with an error or without."""

    error: Exception | None = None


async def _pump(index: int, stream: RequestStream, into: asyncio.Queue[PromptDeltas | End]) -> None:
    try:
        async for deltas in stream:
            into.put_nowait((index, deltas))
    except Exception as error:  # noqa: BLE001 - not handled but carried over: it is raised where the answer is made
        into.put_nowait(End(error))
    else:
        into.put_nowait(End())
