"""What the engine tells its observers, once a step or once a sequence; never the text of anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.core.outputs import FinishReason, RequestTimings


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One step of the engine."""

    duration_s: float
    num_rows: int
    num_tokens: int
    num_sampled_tokens: int
    num_later_tokens: int
    """Of these, the ones that are not their sequence's first, nor of batch work."""
    num_gapless_tokens: int
    """Of these again, those that came in one step with the token before: drafts gained them."""
    num_draft_tokens: int
    """Guessed and computed."""
    num_accepted_tokens: int
    """Of the sampled tokens, those that drafts gained: as many drafts were right."""
    gap_s: float
    """From the end of the step before to this one's: what lies between a sequence's tokens, if no preemption does, and
    nothing between those of one step."""
    num_prefix_queried_tokens: int
    """Prompt tokens of the sequences that the step admitted."""
    num_prefix_hit_tokens: int
    """How many of these the prefix cache had."""
    num_waiting: int
    """Batch work left out; the same below."""
    num_running: int
    num_batch: int
    """Sequences of batch work, waiting and running."""
    num_preempted: int
    """Sequences that lost their blocks to this step."""
    kv_cache_usage: float
    """Blocks held by sequences over all blocks, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceFinished:
    """The end of one sequence."""

    finish_reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    timings: RequestTimings
    is_batch: bool = False


class EngineObserver(Protocol):
    """Called on the engine thread: implementations are quick and never raise."""

    def on_step(self, stats: StepStats) -> None: ...

    def on_sequence_finished(self, finished: SequenceFinished) -> None: ...


class SilentObserver:
    """Observes nothing."""

    def on_step(self, stats: StepStats) -> None:
        """Ignore."""

    def on_sequence_finished(self, finished: SequenceFinished) -> None:
        """Ignore."""
