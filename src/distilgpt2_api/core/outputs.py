"""What comes back to whoever asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from distilgpt2_api.core.plan import TokenLogprobs


class FinishReason(StrEnum):
    STOP = "stop"
    """End of text, a stop token or a stop sequence."""
    LENGTH = "length"
    """`max_tokens`, or the model's last position."""
    ABORT = "abort"
    """The caller went away, or a deadline or a drain ended it."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimings:
    """Seconds, on the engine's monotonic clock."""

    queue_s: float
    """From submission to the first step that computed any of it."""
    ttft_s: float | None
    """From submission to the first token; None if there was none."""
    total_s: float


@dataclass(slots=True, kw_only=True)
class SequenceDelta:
    """What one sequence of a request gained since its last delta.

    Read-only by contract; not frozen, for a frozen one costs three times as much to make, once a token.
    """

    index: int
    """Which of the request's sequences, from 0."""
    text: str = ""
    """Whole characters, nothing that could still turn out to be a stop sequence."""
    token_ids: tuple[int, ...] = ()
    """All tokens drawn since the last delta, also those whose text is held back."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One for each of `token_ids`, where asked for."""
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    """On the sequence's first delta, where asked for: one for each prompt token from `params.first_scored_token` on."""
    finish_reason: FinishReason | None = None
    """Set on the sequence's last delta."""
    error: str | None = None
    """Why it ended with `FinishReason.ERROR`: as `RowResult.error` has it."""
    stop: str | int | None = None
    """The stop sequence or stop token id that ended it."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    num_completion_tokens: int = 0
    """So far, this delta included."""
    timings: RequestTimings | None = None
    """Set on the sequence's last delta."""
