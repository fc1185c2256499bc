"""Events that the engine reports to its observers. They contain no text of a prompt or completion."""

from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.core.outputs import SequenceDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStats:
    """The scheduler's statistics of one step: its plan, and the state of sequences and blocks after it."""

    num_rows: int
    """Sequences that the step computes tokens of."""
    num_tokens: int
    """Tokens that the step computes, drafts included."""
    num_draft_tokens: int
    num_running: int
    """Running sequences, with a row in this step or without, except batch work."""
    num_waiting: int
    """Waiting sequences, except batch work."""
    num_batch: int
    """Sequences of batch work, waiting and running."""
    num_preempted: int
    """Sequences that lost their blocks to this step."""
    num_prefix_queried_tokens: int
    """Prompt tokens of the sequences that this step admitted for the first time."""
    num_prefix_hit_tokens: int
    """Prompt tokens of these sequences that the prefix cache held."""
    kv_cache_usage: float
    """Blocks held by sequences over all blocks, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One step of the engine."""

    schedule: ScheduleStats
    duration_s: float
    num_sampled_tokens: int
    num_accepted_tokens: int
    """Draft tokens that equalled the token sampled in their position. Each saved its sequence a step."""
    num_itl_samples: int
    """Sampled tokens with an inter-token latency: all except each sequence's first token and those of batch work."""
    num_same_step_tokens: int
    """ITL samples of 0 s: tokens sampled in the same step as the token before them, behind an accepted draft."""
    inter_step_s: float
    """Seconds from the end of the previous step to the end of this one: the latency of all other ITL samples."""


class EngineObserver(Protocol):
    """Called on the engine thread: implementations are quick and never raise."""

    def on_step(self, stats: StepStats) -> None: ...

    def on_sequence_finished(self, last: SequenceDelta, *, is_batch: bool) -> None: ...


class SilentObserver:
    """Observes nothing."""

    def on_step(self, stats: StepStats) -> None: ...

    def on_sequence_finished(self, last: SequenceDelta, *, is_batch: bool) -> None: ...
