"""From drawn tokens to text: detokenizes, finds stop sequences, keeps usage and timings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distilgpt2_api.core.outputs import FinishReason, RequestTimings, SequenceDelta
from distilgpt2_api.core.plan import PlanRow, TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.scheduling.scheduler import SequenceUpdate
from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.text.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.stop_matcher import StopMatcher


@dataclass(slots=True, kw_only=True)
class SequenceOutput:
    """Mutable state, owned by `OutputProcessor`: what one sequence has drawn and not yet shown."""

    request_id: str
    index: int
    is_streamed: bool
    sequence: ScheduledSequence
    detokenizer: IncrementalDetokenizer
    stop_matcher: StopMatcher
    submitted_s: float
    has_prompt_logprobs: bool
    started_s: float | None = None
    first_token_s: float | None = None
    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)


class OutputProcessor:
    """Holds the outputs of every live sequence. Engine thread only; times are the engine clock's, in seconds."""

    def __init__(self, *, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._outputs: dict[int, SequenceOutput] = {}

    def add(self, request: GenerationRequest, sequence: ScheduledSequence, *, index: int, submitted_s: float) -> None:
        params = request.params
        self._outputs[sequence.sequence_id] = SequenceOutput(
            request_id=request.request_id,
            index=index,
            is_streamed=request.is_streamed,
            sequence=sequence,
            detokenizer=IncrementalDetokenizer(self._token_bytes),
            stop_matcher=StopMatcher(params.stop, is_included=params.include_stop_str_in_output),
            submitted_s=submitted_s,
            has_prompt_logprobs=params.num_prompt_logprobs is not None,
        )

    def mark_started(self, rows: Iterable[PlanRow], now_s: float) -> list[str]:
        """Ends the rows' queue time where it has not ended before; returns the request ids of those."""
        started = []
        for row in rows:
            output = self._outputs[row.sequence_id]
            if output.started_s is None:
                output.started_s = now_s
                started.append(output.request_id)
        return started

    def accept(self, update: SequenceUpdate, now_s: float) -> str | None:
        """Take one step's gain of a sequence. Returns the stop sequence that it completed: the caller finishes it."""
        output = self._outputs[update.sequence.sequence_id]
        result = update.result
        if output.has_prompt_logprobs and result.prompt_logprobs:
            output.prompt_logprobs.extend(result.prompt_logprobs)
        if update.token_id is None:
            return None
        if output.first_token_s is None:
            output.first_token_s = now_s
        output.token_ids.append(update.token_id)
        if result.logprobs is not None:
            output.logprobs.append(result.logprobs)
        if update.sequence.finish_reason is FinishReason.STOP:
            return None  # End of text and stop tokens are counted, never shown.
        text = output.detokenizer.push(update.token_id)
        if not text:
            return None
        text, stop = output.stop_matcher.push(text)
        if text:
            output.text.append(text)
        return stop

    def take(self, sequence_id: int, now_s: float, *, stop: str | None = None) -> SequenceDelta | None:
        """What a sequence gained since the last take; None while there is nothing to hand over.

        The last delta of a finished sequence forgets it. `stop` is the stop sequence that finished it.
        """
        output = self._outputs[sequence_id]
        sequence = output.sequence
        finish_reason = sequence.finish_reason
        if finish_reason is None:
            if not output.is_streamed or not output.token_ids:
                return None
        else:
            del self._outputs[sequence_id]
            if stop is None:
                output.text.append(self._rest_of_text(output))
        is_first = sequence.num_completion_tokens == len(output.token_ids)
        delta = SequenceDelta(
            index=output.index,
            text="".join(output.text),
            token_ids=tuple(output.token_ids),
            logprobs=tuple(output.logprobs),
            prompt_logprobs=tuple(output.prompt_logprobs) if is_first and output.has_prompt_logprobs else None,
            finish_reason=finish_reason,
            stop=stop if stop is not None else _stop_token_id(sequence),
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_completion_tokens=sequence.num_completion_tokens,
            timings=None if finish_reason is None else self._timings(output, now_s),
        )
        output.text.clear()
        output.token_ids.clear()
        output.logprobs.clear()
        return delta

    def request_id(self, sequence_id: int) -> str:
        return self._outputs[sequence_id].request_id

    @staticmethod
    def _rest_of_text(output: SequenceOutput) -> str:
        """What was held back, now that nothing can complete it. A stop sequence in it still ends the text."""
        shown, stop = output.stop_matcher.push(output.detokenizer.flush())
        return shown if stop is not None else shown + output.stop_matcher.flush()

    @staticmethod
    def _timings(output: SequenceOutput, now_s: float) -> RequestTimings:
        started_s = output.started_s if output.started_s is not None else now_s
        return RequestTimings(
            queue_s=started_s - output.submitted_s,
            ttft_s=None if output.first_token_s is None else output.first_token_s - output.submitted_s,
            total_s=now_s - output.submitted_s,
        )


def _stop_token_id(sequence: ScheduledSequence) -> int | None:
    """The token of `stop_token_ids` that ended it, if one did: the model's own end of text is nobody's wish."""
    return sequence.stop_token_id if sequence.stop_token_id in sequence.params.stop_token_ids else None
