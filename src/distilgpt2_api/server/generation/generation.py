"""One HTTP request in the engine: a generation request for each of its prompts, read as one stream of updates."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from distilgpt2_api.core.caller import Caller
from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import DeadlineExceededError, GenerationError, InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import NOTHING_TO_DRAW
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.request_stream import RequestStream
from distilgpt2_api.observability.request_record import RequestRecord

PromptDeltas = tuple[int, tuple[SequenceDelta, ...]]
"""Index of the prompt, and its sequences' new deltas. An update is a list of these."""


class Generation:
    """Submits all prompts or none when iteration starts; the end of the iteration aborts what still runs."""

    def __init__(self, engine: AsyncEngine, requests: Sequence[GenerationRequest], record: RequestRecord) -> None:
        self._engine = engine
        self._requests = requests
        self._record = record
        self._streams: list[RequestStream] = []
        self._is_aborted = False
        self.write_directly: Callable[[list[PromptDeltas]], bool] | None = None
        """Gets the updates of a single prompt as the engine delivers them, if the consumer of `updates` waits for one.
        Returns whether it wrote the update; if not, `updates` has it. The last update of a sequence is in `updates`."""
        self._unfinished: dict[tuple[int, int], int] = {}
        """Completion tokens so far by prompt and sequence: an aborted sequence has no last delta that counts them."""

    def abort(self) -> None:
        """End the iteration. Idempotent, and legal before it starts."""
        self._is_aborted = True
        for stream in self._streams:
            stream.abort()

    async def updates(self) -> AsyncGenerator[list[PromptDeltas]]:
        """New deltas, as the engine delivers them. Raises the engine's errors.

        Finish reasons are `stop` or `length`. Except after `abort`, any other end raises DeadlineExceededError,
        InvalidRequestError (nothing to draw) or GenerationError.
        """
        try:
            if self._is_aborted:
                return
            check_num_prompts(len(self._requests), self._record.caller)
            self._record.reserve(count_tokens_at_most(self._requests, self._engine.model_config))
            self._streams = self._engine.submit_all(self._requests, caller=self._record.caller)
            self._record.admit(sum(request.num_sequences for request in self._requests))
            if len(self._streams) == 1:
                self._streams[0].take_directly = self._take_directly
                merged = _only(self._streams[0])
            else:
                merged = _merge(self._streams)
            async with aclosing(merged):
                async for update in merged:
                    for prompt_index, deltas in update:
                        self._check(prompt_index, deltas)
                    if self._is_aborted:  # the client is gone: don't serialize the rest
                        return
                    yield update
        finally:
            self.abort()
            self._record.num_completion_tokens += sum(self._unfinished.values())

    def _take_directly(self, deltas: Sequence[SequenceDelta]) -> bool:
        if self.write_directly is None or self._is_aborted:
            return False
        for delta in deltas:
            if delta.finish_reason is not None:
                return False
        try:
            if not self.write_directly([(0, tuple(deltas))]):
                return False
        except Exception:  # noqa: BLE001 - it is raised again where it ends only this request: by the consumer of `updates`
            return False
        for delta in deltas:
            self._unfinished[0, delta.index] = delta.num_completion_tokens
        return True

    def _check(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> None:
        for delta in deltas:
            if delta.finish_reason is None:
                self._unfinished[prompt_index, delta.index] = delta.num_completion_tokens
                continue
            self._unfinished.pop((prompt_index, delta.index), None)
            self._record.note(delta)
            check_end(delta, is_aborted=self._is_aborted)


def check_num_prompts(num_prompts: int, caller: Caller) -> None:
    """Raise InvalidRequestError for more prompts than the caller may ever have in flight: a retry would not help."""
    max_requests = caller.limits.max_requests
    if max_requests is not None and num_prompts > max_requests:
        raise InvalidRequestError(
            f"the request has {num_prompts} prompts; you may have at most {max_requests} in flight: send fewer at once"
        )


def count_tokens_at_most(requests: Iterable[GenerationRequest], config: ModelConfig) -> int:
    """The tokens that the requests use at most, as answers count them: each prompt once."""
    return sum(
        num_prompt_tokens + request.num_sequences * min(request.params.max_tokens, config.num_positions)
        for request in requests
        for num_prompt_tokens in [len(request.prompt_token_ids)]
    )


def check_end(delta: SequenceDelta, *, is_aborted: bool) -> None:
    """Raise DeadlineExceededError, InvalidRequestError (nothing to draw) or GenerationError for an end in error.

    `is_aborted`: `abort` was called, so the abort is not a deadline's.
    """
    if delta.finish_reason is FinishReason.ABORT and not is_aborted:
        raise DeadlineExceededError("the request did not finish before its deadline")
    if delta.error == NOTHING_TO_DRAW:
        raise InvalidRequestError(
            "no token is left to sample: the tokens that the request bans and allows together rule out all of them"
        )
    if delta.finish_reason is FinishReason.ERROR:
        raise GenerationError("the completion failed")


async def _only(stream: RequestStream) -> AsyncGenerator[list[PromptDeltas]]:
    async for deltas in stream:
        yield [(0, deltas)]


async def _merge(streams: Sequence[RequestStream]) -> AsyncGenerator[list[PromptDeltas]]:
    """All streams' deltas. Those that arrive together stay together."""
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
    """The end of one of several streams, with or without an error."""

    error: Exception | None = None


async def _pump(index: int, stream: RequestStream, into: asyncio.Queue[PromptDeltas | End]) -> None:
    try:
        async for deltas in stream:
            into.put_nowait((index, deltas))
    except Exception as error:  # noqa: BLE001 - not handled here but passed on: `_merge` raises it
        into.put_nowait(End(error))
    else:
        into.put_nowait(End())
