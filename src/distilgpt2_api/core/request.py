"""A request as entry points hand it to the engine."""

from dataclasses import dataclass

from distilgpt2_api.core.params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """`num_sequences` completions of one prompt. It has no HTTP, no model name and no text of the prompt."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    """At least one; each in [0, vocab_size)."""
    params: SamplingParams
    num_sequences: int = 1
    """Sequence i has its own seed, derived from `params.seed` and i."""
    is_streamed: bool = True
    """Whether deltas are returned as tokens are sampled. Otherwise each sequence has one at its end, which is
    cheaper."""
    priority: int = 0
    """At least the caller's `min_priority`. Waiting requests with a lower number are served first, among equals by fair
    share. A priority preempts no running sequence, but if blocks run out, the highest number is preempted first."""
    deadline_s: float | None = None
    """Seconds from submission after which the request is aborted, including queue time."""
