"""What was asked: the word that crosses from the doors into the engine."""

from __future__ import annotations

from dataclasses import dataclass

from distilgpt2_api.core.params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """`num_sequences` completions of one prompt. Nothing below knows HTTP, names of models or texts of prompts."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    """At least one; each in [0, vocab_size)."""
    params: SamplingParams
    num_sequences: int = 1
    """Sequence i draws with a seed of its own, made from `params.seed` and i."""
    is_streamed: bool = True
    """Deltas as they come; else one for each sequence, at its end, which costs the engine less."""
    priority: int = 0
    """At least the caller's `min_priority`. Who waits with a lower one is served earlier; among equals, who came
    earlier. It preempts no running sequence; but if memory runs short, the highest gives way first."""
    deadline_s: float | None = None
    """Seconds from submission after which the request is aborted, queue time included."""
