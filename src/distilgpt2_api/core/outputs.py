"""The engine's output for one sequence of a request."""

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
    """The client disconnected, or a deadline or a drain ended the sequence."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimings:
    """The phases of a sequence or a request, one after the other: seconds on the engine's monotonic clock."""

    queue_s: float
    """From submission to the first step that computed a token."""
    prefill_s: float | None
    """From then to the first sampled token or, without one, to the end. None: no step computed a token."""
    decode_s: float | None
    """From the first sampled token to the end. None: no token was sampled."""

    @classmethod
    def between(
        cls, submitted_s: float, started_s: float | None, first_token_s: float | None, ended_s: float
    ) -> RequestTimings:
        """The phases between these moments; None for one that did not come."""
        if started_s is None:
            return cls(queue_s=ended_s - submitted_s, prefill_s=None, decode_s=None)
        return cls(
            queue_s=started_s - submitted_s,
            prefill_s=(ended_s if first_token_s is None else first_token_s) - started_s,
            decode_s=None if first_token_s is None else ended_s - first_token_s,
        )

    @property
    def ttft_s(self) -> float | None:
        """From submission to the first sampled token (TTFT); None without one."""
        if self.prefill_s is None or self.decode_s is None:
            return None
        return self.queue_s + self.prefill_s

    @property
    def total_s(self) -> float:
        """From submission to the end."""
        return self.queue_s + (self.prefill_s or 0.0) + (self.decode_s or 0.0)

    def merge(self, other: RequestTimings) -> RequestTimings:
        """The timings of both as one request: to its first step, to its first token, to its last end."""
        starts_s = [timings.queue_s for timings in (self, other) if timings.prefill_s is not None]
        ttfts_s = [timings.ttft_s for timings in (self, other) if timings.ttft_s is not None]
        return RequestTimings.between(
            0.0, min(starts_s, default=None), min(ttfts_s, default=None), max(self.total_s, other.total_s)
        )

    def decode_tokens_per_s(self, num_completion_tokens: int) -> float | None:
        """Tokens after the first per second of decoding; None without such a token."""
        if not self.decode_s or num_completion_tokens < 2:
            return None
        return (num_completion_tokens - 1) / self.decode_s


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
        if self.timings is None or self.timings.decode_s is None or self.num_completion_tokens < 2:
            return None
        return self.timings.decode_s / (self.num_completion_tokens - 1)
