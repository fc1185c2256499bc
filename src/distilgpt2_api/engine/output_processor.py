"""Turns sampled tokens into text: detokenizes, matches stop sequences, and keeps usage and timings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distilgpt2_api.core.outputs import FinishReason, RequestTimings, SequenceDelta
from distilgpt2_api.core.plan import PlanRow, TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence import SequenceUpdate
from distilgpt2_api.text.detokenization.detokenizer import IncrementalDetokenizer
from distilgpt2_api.text.detokenization.stop_matcher import StopMatcher, compiled_stop


@dataclass(slots=True, kw_only=True)
class SequenceOutput:
    """Mutable: the pending output of one sequence."""

    request_id: str
    index: int
    is_streamed: bool
    sequence: ScheduledSequence
    detokenizer: IncrementalDetokenizer
    stop_matcher: StopMatcher | None
    """None without stop sequences."""
    submitted_s: float
    has_prompt_logprobs: bool
    started_s: float | None = None
    first_token_s: float | None = None
    error: str | None = None
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    def accept(self, update: SequenceUpdate, now_s: float) -> str | None:
        """Apply an update. Returns the stop sequence that it completed, for which the caller ends the sequence."""
        result = update.result
        if result.prompt_logprobs:
            self.prompt_logprobs.extend(result.prompt_logprobs)
        if update.token_id is None:
            self.error = result.error
            return None
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.token_ids.append(update.token_id)
        if result.logprobs is not None:
            self.logprobs.append(result.logprobs)
        if self.sequence.finish_reason is FinishReason.STOP:
            return None  # the end of text and stop tokens are counted, but are not part of the text
        return self._add_text(self.detokenizer.push(update.token_id))

    def take(self, now_s: float, *, stop: str | None = None) -> SequenceDelta | None:
        """The pending output as a delta; None if there is nothing to deliver yet.

        `stop` is the stop sequence that ended the sequence.
        """
        sequence = self.sequence
        finish_reason = sequence.finish_reason
        if finish_reason is not None:
            if stop is None:
                self._flush()
        elif not self.is_streamed or not self.token_ids:
            return None
        num_completion_tokens = sequence.num_completion_tokens
        is_first = num_completion_tokens == len(self.token_ids)
        delta = SequenceDelta(
            index=self.index,
            text=self.text,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            prompt_logprobs=tuple(self.prompt_logprobs) if is_first and self.has_prompt_logprobs else None,
            finish_reason=finish_reason,
            error=self.error,
            stop=stop if finish_reason is None or stop is not None else _stop_token_id(sequence),
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_completion_tokens=num_completion_tokens,
            timings=None
            if finish_reason is None
            else RequestTimings.between(self.submitted_s, self.started_s, self.first_token_s, now_s),
        )
        self.text = ""
        self.token_ids.clear()
        self.logprobs.clear()
        return delta

    def _add_text(self, text: str) -> str | None:
        """Add a piece of text, up to a stop sequence that it completes. Returns the stop sequence."""
        stop = None
        if self.stop_matcher is not None and text:
            text, stop = self.stop_matcher.push(text)
        self.text += text
        return stop

    def _flush(self) -> None:
        """Add the text that was held back. A stop sequence in it still ends the text."""
        stop = self._add_text(self.detokenizer.flush())
        if stop is None and self.stop_matcher is not None:
            self.text += self.stop_matcher.flush()


class OutputProcessor:
    """Owns the outputs of all sequences in flight. Engine thread only. Times are seconds on the engine's clock."""

    def __init__(self, *, token_bytes: Sequence[bytes], plain_token_bytes: Sequence[bytes]) -> None:
        """The tokenizer's tables by token id: with the text of special tokens, and without."""
        self._token_bytes = token_bytes
        self._plain_token_bytes = plain_token_bytes
        self._outputs: dict[int, SequenceOutput] = {}
        self._not_started: set[int] = set()

    def add(self, request: GenerationRequest, sequence: ScheduledSequence, *, index: int, submitted_s: float) -> None:
        params = request.params
        self._outputs[sequence.sequence_id] = SequenceOutput(
            request_id=request.request_id,
            index=index,
            is_streamed=request.is_streamed,
            sequence=sequence,
            detokenizer=IncrementalDetokenizer(
                self._plain_token_bytes if params.skip_special_tokens else self._token_bytes
            ),
            stop_matcher=StopMatcher(compiled_stop(params), is_included=params.include_stop_str_in_output)
            if params.stop
            else None,
            submitted_s=submitted_s,
            has_prompt_logprobs=params.num_prompt_logprobs is not None,
        )
        self._not_started.add(sequence.sequence_id)

    def of(self, sequence_id: int) -> SequenceOutput:
        return self._outputs[sequence_id]

    def forget(self, sequence_id: int) -> SequenceOutput:
        """Remove the output of a sequence that has ended. Its last delta is still to be taken."""
        self._not_started.discard(sequence_id)
        return self._outputs.pop(sequence_id)

    def mark_started(self, rows: Iterable[PlanRow], now_s: float) -> list[str]:
        """End the queue time of sequences in their first step. Returns their request ids."""
        if not self._not_started:
            return []
        started = []
        for row in rows:
            if row.sequence_id in self._not_started:
                self._not_started.remove(row.sequence_id)
                output = self._outputs[row.sequence_id]
                output.started_s = now_s
                started.append(output.request_id)
        return started


def _stop_token_id(sequence: ScheduledSequence) -> int | None:
    """The token of `stop_token_ids` that ended the sequence, if one did. The model's end of text is not reported."""
    return sequence.stop_token_id if sequence.stop_token_id in sequence.ending_tokens.requested else None
