"""Beam search over the engine: each step requests one token of every live beam of every prompt, all at once.

A beam is a request for a single token: its prompt is the prompt and the beam so far. The prefix cache still holds its
full blocks.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason, RequestTimings, SequenceDelta
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.beam_search import BeamOptions, BeamSearch, Hypothesis
from distilgpt2_api.engine.request_stream import RequestStream
from distilgpt2_api.engine.validation import validate_request
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.beam_options import find_ending_token_ids
from distilgpt2_api.server.generation.generation import (
    Generation,
    PromptDeltas,
    check_end,
    check_num_prompts,
    count_tokens_at_most,
)
from distilgpt2_api.text.detokenization.detokenizer import IncrementalDetokenizer

MAX_BEAMS = 1024
"""Over all prompts of one request: after the first step, beams bypass the admission queue."""


class BeamGeneration(Generation):
    """A generation by beam search: an update has a prompt's best sequences, `index` 0 the best, once they are found.

    The first step admits all prompts or none. After it, neither a full queue nor a drain refuses the next steps.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        requests: Sequence[GenerationRequest],
        options: BeamOptions,
        record: RequestRecord,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check_beam_search` has passed; each request's `num_sequences`, at most `num_beams`, are returned."""
        super().__init__(engine, requests, record)
        self._options = options
        self._clock = clock

    async def updates(self) -> AsyncGenerator[list[PromptDeltas]]:
        """Each prompt's sequences, as soon as its search is done. Raises the engine's errors.

        Finish reasons are `stop` or `length`. Raises DeadlineExceededError and GenerationError as `Generation` does.
        """
        try:
            if self._is_aborted:
                return
            check_num_prompts(len(self._requests), self._record.caller)
            self._record.reserve(count_tokens_at_most(self._requests, self._engine.model_config))
            self._check_size()
            begun_s = self._clock()
            live = [
                PromptSearch(index, request, self._options, self._engine, begun_s=begun_s)
                for index, request in enumerate(self._requests)
            ]
            with self._engine.hold_drain(), ExitStack() as in_flight:
                while live:
                    await self._step(live, in_flight, now_s=self._clock())
                    if self._is_aborted:
                        return
                    now_s = self._clock()
                    if update := [(search.index, search.deltas(now_s)) for search in live if search.is_done]:
                        for _, deltas in update:
                            for delta in deltas:
                                self._record.note(delta)
                        yield update
                    live = [search for search in live if not search.is_done]
        finally:
            self.abort()

    def _check_size(self) -> None:
        """In a step, each beam of each prompt is a sequence of its own."""
        num_prompts, num_beams = len(self._requests), self._options.num_beams
        if num_prompts * num_beams > MAX_BEAMS:
            raise InvalidRequestError(
                f"{num_prompts} prompts with {num_beams} beams each are {num_prompts * num_beams} sequences; at most"
                f" {MAX_BEAMS} are allowed in one request"
            )

    async def _step(self, live: Sequence[PromptSearch], in_flight: ExitStack, *, now_s: float) -> None:
        """Compute one more token of every beam; return early on `abort`. The first step is also the admission."""
        is_first = not live[0].has_begun
        self._streams = []
        steps = [search.next_requests(now_s) for search in live]
        self._streams = self._engine.submit_all(
            list(chain.from_iterable(steps)), caller=self._record.caller, is_continuation=not is_first
        )
        if is_first:  # and all admitted: each counts as a request until the search ends
            self._record.admit(sum(request.num_sequences for request in self._requests))
            in_flight.enter_context(self._engine.count_in_flight(self._record.caller, len(live)))
        deltas = iter([await self._read(stream) for stream in self._streams])
        if not self._is_aborted:
            for search, requests in zip(live, steps, strict=True):
                search.accept([next(deltas) for _ in requests])

    async def _read(self, stream: RequestStream) -> SequenceDelta:
        """The only delta of a beam's request; after `abort`, an empty one."""
        async for (delta,) in stream:
            if delta.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
                self._record.note(delta)
            check_end(delta, is_aborted=self._is_aborted)
            return delta
        return SequenceDelta(index=0)


class PromptSearch:
    """Mutable: one prompt's search, between the engine's requests and the algorithm's candidates."""

    def __init__(
        self, index: int, request: GenerationRequest, options: BeamOptions, engine: AsyncEngine, *, begun_s: float
    ) -> None:
        """Raises InvalidRequestError if the request as a whole does not fit the model."""
        config, params = engine.model_config, request.params
        validate_request(request, config, engine.tokenizer)
        self.index = index
        self._request = request
        tokenizer = engine.tokenizer
        self._token_bytes = tokenizer.plain_token_bytes if params.skip_special_tokens else tokenizer.token_bytes
        self._begun_s = begun_s
        self._search = BeamSearch(
            options,
            max_tokens=params.max_tokens,
            min_tokens=params.min_tokens,
            ending_token_ids=find_ending_token_ids(params, config),
            num_top=params.num_logprobs or 0,
        )
        self._num_steps = 0
        self._first: SequenceDelta | None = None
        """The first step's answer. It has the prompt's own log-probabilities and timings."""

    @property
    def has_begun(self) -> bool:
        return self._first is not None

    @property
    def is_done(self) -> bool:
        return self._search.is_done

    def next_requests(self, now_s: float) -> list[GenerationRequest]:
        """One for each live beam."""
        request, search = self._request, self._search
        params = SamplingParams(
            max_tokens=1,
            first_scored_token=request.params.first_scored_token,
            temperature=0.0,
            ignore_eos=True,
            num_logprobs=max(search.num_candidates, request.params.num_logprobs or 0),
            num_prompt_logprobs=None if self.has_begun else request.params.num_prompt_logprobs,
        )
        self._num_steps += 1
        return [
            replace(
                request,
                request_id=f"{request.request_id}-{self._num_steps}-{rank}",
                prompt_token_ids=request.prompt_token_ids + beam.token_ids,
                params=params,
                num_sequences=1,
                is_streamed=False,
                deadline_s=None if request.deadline_s is None else request.deadline_s - (now_s - self._begun_s),
            )
            for rank, beam in enumerate(search.beams)
        ]

    def accept(self, deltas: Sequence[SequenceDelta]) -> None:
        """Take the answers to `next_requests`, in the same order."""
        if self._first is None:
            (self._first,) = deltas
        self._search.advance([delta.logprobs[0].top for delta in deltas])

    def deltas(self, now_s: float) -> tuple[SequenceDelta, ...]:
        """The requested sequences, complete, best first."""
        best = self._search.hypotheses[: self._request.num_sequences]
        return tuple(self._delta(index, hypothesis, now_s) for index, hypothesis in enumerate(best))

    def _delta(self, index: int, hypothesis: Hypothesis, now_s: float) -> SequenceDelta:
        first, params = self._first, self._request.params
        assert first is not None
        assert first.timings is not None
        token_ids, ending_token_id = hypothesis.beam.token_ids, hypothesis.ending_token_id
        return SequenceDelta(
            index=index,
            text=self._text(token_ids if ending_token_id is None else token_ids[:-1]),
            token_ids=token_ids,
            logprobs=() if params.num_logprobs is None else hypothesis.beam.logprobs,
            prompt_logprobs=first.prompt_logprobs,
            finish_reason=FinishReason.LENGTH if ending_token_id is None else FinishReason.STOP,
            stop=ending_token_id if ending_token_id in params.stop_token_ids else None,
            num_prompt_tokens=first.num_prompt_tokens,
            num_cached_tokens=first.num_cached_tokens,
            num_completion_tokens=len(token_ids),
            timings=RequestTimings.between(0.0, first.timings.queue_s, first.timings.ttft_s, now_s - self._begun_s),
        )

    def _text(self, token_ids: Sequence[int]) -> str:
        detokenizer = IncrementalDetokenizer(self._token_bytes)
        return "".join([*map(detokenizer.push, token_ids), detokenizer.flush()])
