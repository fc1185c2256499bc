"""The contract between scheduler and runner: a step plan goes down, a step result comes back, row by row.

Prefill and decode are one mechanism: a row computes the next tokens of one sequence, and when those reach the
sequence's last token the row draws one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.core.params import SamplingParams

NOTHING_TO_DRAW = "every token is banned"
"""`RowResult.error` where it is the request's own parameters that leave no token to draw."""


class TokenMask(Protocol):
    """Which tokens a grammar allows next; it is computed while the kernels run."""

    def wait(self) -> bytes:
        """One bit for each token, token 0 in the lowest bit of the first byte; a whole number of 4-byte words.

        Tokens beyond the last bit are forbidden. Raises GenerationError where there is no saying what is allowed.
        """


@dataclass(slots=True, kw_only=True)
class PlanRow:
    """One sequence's share of a step. Read-only by contract; not frozen, for a frozen one costs twice to make.

    The lists are the sequence's own and grow only between steps: the runner reads, and keeps nothing.
    """

    sequence_id: int
    token_ids: Sequence[int]
    """All tokens of the sequence so far: prompt and completion."""
    num_prompt_tokens: int
    num_computed_tokens: int
    """Tokens whose keys and values are in the cache before this step: the position of the first token computed."""
    num_new_tokens: int
    """Computed in this step: `token_ids[num_computed_tokens:][:num_new_tokens]`; at least 1."""
    block_ids: Sequence[int]
    """Block table; covers `num_computed_tokens + num_new_tokens` tokens, and the drafts."""
    params: SamplingParams
    seed: int
    """This sequence's own. With the position of the token drawn it is the key of the random number."""
    is_sampling: bool
    """The last new token is the sequence's last: draw the next."""
    mask: TokenMask | None = None
    """Where `params.grammar` is set and the row draws."""
    num_prompt_logprobs: int | None = None
    """None, or: also score the prompt tokens that follow the new tokens (see `RowResult.prompt_logprobs`)."""
    draft_token_ids: Sequence[int] = ()
    """A guess at what is drawn next, computed behind the sequence's last token, so that as much of it as is right need
    no step of its own. Only in a row of one new token that draws, scores nothing and has no grammar."""


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """What one step computes. Rows are in no particular order; a sequence has at most one."""

    rows: Sequence[PlanRow]

    @property
    def num_tokens(self) -> int:
        """Computed, drafts included."""
        return sum(row.num_new_tokens for row in self.rows) + self.num_draft_tokens

    @property
    def num_draft_tokens(self) -> int:
        return sum(len(row.draft_token_ids) for row in self.rows)


@dataclass(slots=True, kw_only=True)
class TokenLogprobs:
    """Log-probabilities at one position, of the model's own distribution (no temperature, no penalty)."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens, best first, as many as were asked for; `token_id`'s own float is the same one."""


@dataclass(slots=True, kw_only=True)
class RowResult:
    """What a row of the plan gave, at the same index."""

    token_id: int | None = None
    """The token drawn; None where the row drew none."""
    logprobs: TokenLogprobs | None = None
    """Of `token_id`, where asked for."""
    prompt_logprobs: Sequence[TokenLogprobs] = ()
    """Of prompt tokens at positions `num_computed_tokens + 1 …`, as far as this step's logits tell them."""
    error: str | None = None
    """Why this row failed (its logits were not finite, say), fit for the caller's eyes; other rows are sound."""
    accepted: Sequence[RowResult] = ()
    """What was drawn after `token_id`, one for each of the row's drafts that were right: each the same as in a step of
    its own."""


@dataclass(slots=True, kw_only=True)
class StepResult:
    rows: Sequence[RowResult]
