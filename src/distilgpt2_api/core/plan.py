"""The contract between scheduler and runner: a step plan, and a result for each of its rows.

Prefill and decode are one mechanism: a row computes the next tokens of one sequence. If they include the sequence's
last token, the row also samples the next one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from distilgpt2_api.core.params import SamplingParams

NOTHING_TO_DRAW = "every token is banned"
"""`RowResult.error` if the request's parameters leave no token to sample."""


class TokenMask(Protocol):
    """The tokens that a grammar allows next. It is computed while the kernels run."""

    def wait(self) -> bytes:
        """One bit per token, token 0 in the lowest bit of the first byte; a whole number of 4-byte words.

        Tokens beyond the last bit are forbidden. Raises GenerationError if the mask can't be computed.
        """


@dataclass(slots=True, kw_only=True)
class PlanRow:
    """One sequence's part of a step. Read-only by contract. Not frozen: a frozen one takes twice as long to create.

    The lists belong to the sequence and grow only between steps. The runner reads them and keeps no reference.
    """

    sequence_id: int
    token_ids: Sequence[int]
    """All tokens of the sequence so far: prompt and completion."""
    num_prompt_tokens: int
    num_computed_tokens: int
    """Tokens with keys and values in the cache before this step; also the position of the first token to compute."""
    num_new_tokens: int
    """Tokens to compute: `token_ids[num_computed_tokens:][:num_new_tokens]`; at least 1."""
    block_ids: Sequence[int]
    """Block table; covers `num_computed_tokens + num_new_tokens` tokens and the drafts."""
    params: SamplingParams
    seed: int
    """The sequence's seed. With the position of the sampled token it is the key of the random number."""
    is_sampling: bool
    """Whether to sample a token: the last new token is the sequence's last."""
    mask: TokenMask | None = None
    """Set if the row samples with `params.grammar`."""
    mirostat_mu: float | None = None
    """The largest surprisal of the token to sample, in bits, if `params.mirostat` is on. It changes with each token."""
    num_prompt_logprobs: int | None = None
    """If not None, also score the prompt tokens that follow the new tokens (see `RowResult.prompt_logprobs`)."""
    draft_token_ids: Sequence[int] = ()
    """Tokens to compute after the sequence's last token, in case they are sampled. Only in a row of one new token that
    samples and scores nothing, if `params.allows_drafts`."""


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """The rows of one step, in no particular order, at most one per sequence."""

    rows: Sequence[PlanRow]

    @property
    def num_tokens(self) -> int:
        """Tokens to compute, including drafts."""
        return sum(row.num_new_tokens for row in self.rows) + self.num_draft_tokens

    @property
    def num_draft_tokens(self) -> int:
        return sum(len(row.draft_token_ids) for row in self.rows)


@dataclass(slots=True, kw_only=True)
class TokenLogprobs:
    """Log-probabilities at one position, from the model's own distribution: without temperature or penalties."""

    token_id: int
    logprob: float
    top_ids: Sequence[int] = ()
    top_logprobs: Sequence[float] = ()
    """The requested number of likeliest tokens, best first. If `token_id` is one of them, its value is `logprob`.

    Arrays: pairs of Python numbers would take five times the memory, and a slow reader has many tokens to read.
    """

    @classmethod
    def of(cls, token_id: int, logprob: float, top: Sequence[tuple[int, float]]) -> Self:
        """With the likeliest tokens as pairs of an id and a log-probability."""
        ids, logprobs = array("i", [pair[0] for pair in top]), array("d", [pair[1] for pair in top])
        return cls(token_id=token_id, logprob=logprob, top_ids=ids, top_logprobs=logprobs)

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        return tuple(zip(self.top_ids, self.top_logprobs, strict=True))


@dataclass(slots=True, kw_only=True)
class RowResult:
    """The result of the plan's row with the same index."""

    token_id: int | None = None
    """The sampled token; None if the row sampled none."""
    mirostat_mu: float | None = None
    """The limit of the next token, if the row has one."""
    logprobs: TokenLogprobs | None = None
    """Log-probabilities of `token_id`, if requested."""
    prompt_logprobs: Sequence[TokenLogprobs] = ()
    """Log-probabilities of prompt tokens at positions `num_computed_tokens + 1 …` for which this step has logits."""
    error: str | None = None
    """Why this row failed, for example non-finite logits; safe to show to the client. Other rows are not affected."""
    accepted: Sequence[RowResult] = ()
    """One result for each accepted draft, in order: the token sampled behind it, the same as in a step of its own."""


@dataclass(slots=True, kw_only=True)
class StepResult:
    rows: Sequence[RowResult]
