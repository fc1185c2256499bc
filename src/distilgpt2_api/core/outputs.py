"""The engine's output for one sequence of a request."""

from dataclasses import dataclass
from enum import StrEnum

from distilgpt2_api.core.plan import TokenLogprobs


class FinishReason(StrEnum):
    STOP = "stop"
    """End of text, a stop token or a stop sequence."""
    LENGTH = "length"
    """`max_tokens`, or the model's last position."""
    ABORT = "abort"
    """The client disconnected, or a deadline or a drain ended the sequence."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimings:
    """Seconds, on the engine's monotonic clock."""

    queue_s: float
    """From submission to the first step that computed a token of the sequence."""
    ttft_s: float | None
    """From submission to the first sampled token; None without one."""
    total_s: float


@dataclass(slots=True, kw_only=True)
class SequenceDelta:
    """The new output of one sequence since its last delta.

    Read-only by contract. Not frozen: a frozen one takes three times as long to create, once per token.
    """

    index: int
    """Index of the sequence in its request, from 0."""
    text: str = ""
    """Whole characters, without any that could still become part of a stop sequence."""
    token_ids: tuple[int, ...] = ()
    """All tokens sampled since the last delta, including those whose text is held back."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One for each of `token_ids`, if requested."""
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    """In the sequence's first delta, if requested: one for each prompt token from `params.first_scored_token` on."""
    finish_reason: FinishReason | None = None
    """Set on the sequence's last delta."""
    error: str | None = None
    """The cause of `FinishReason.ERROR`, from `RowResult.error`."""
    stop: str | int | None = None
    """The stop sequence or stop token id that ended the sequence."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    num_completion_tokens: int = 0
    """So far, including this delta."""
    timings: RequestTimings | None = None
    """Set on the sequence's last delta."""

    @property
    def tpot_s(self) -> float | None:
        """On the last delta: the mean time per token after the first; None without such a token."""
        num_later_tokens = self.num_completion_tokens - 1
        if self.timings is None or self.timings.ttft_s is None or num_later_tokens < 1:
            return None
        return (self.timings.total_s - self.timings.ttft_s) / num_later_tokens
