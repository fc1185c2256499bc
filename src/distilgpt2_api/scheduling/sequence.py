"""One sequence in flight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from typing import Self

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.scheduling.drafter import Drafter
from distilgpt2_api.scheduling.prefix import block_digest


class SequenceStatus(Enum):
    WAITING = auto()
    """Holds no blocks: new, or preempted."""
    RUNNING = auto()
    """Holds blocks for all of its tokens but, at most, the last; for drafts there may be more."""
    FINISHED = auto()
    """Holds none, and never will."""


@dataclass(frozen=True, slots=True)
class EndingTokens:
    """Tokens that end a sequence."""

    all: frozenset[int]
    requested: frozenset[int]
    """Those of `stop_token_ids`. The model's end of text is among them only if the request names it."""

    @classmethod
    def of(cls, params: SamplingParams, *, eos_token_ids: Iterable[int]) -> Self:
        """Made once for all sequences of the request."""
        return params.derive(cls, lambda: cls._make(params, eos_token_ids))

    @classmethod
    def _make(cls, params: SamplingParams, eos_token_ids: Iterable[int]) -> Self:
        requested = frozenset(params.stop_token_ids)
        return cls(requested.union(eos_token_ids if params.is_ended_by_eos else ()), requested)


class Sequence:
    """Mutable state of one sequence. The scheduler is its only writer; others read what the attributes below name."""

    __slots__ = (
        "_digests",
        "arrival",
        "block_ids",
        "caller",
        "drafter",
        "ending_tokens",
        "finish_reason",
        "is_admitted_before",
        "is_batch",
        "leader_id",
        "max_num_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_prompt_tokens",
        "num_scored_tokens",
        "params",
        "priority",
        "seed",
        "sequence_id",
        "status",
        "stop_token_id",
        "token_ids",
        "virtual_start",
    )

    def __init__(
        self,
        *,
        sequence_id: int,
        prompt_token_ids: tuple[int, ...],
        params: SamplingParams,
        seed: int,
        num_positions: int,
        eos_token_ids: Iterable[int],
        leader_id: int | None = None,
        priority: int = 0,
        caller: str = "",
        is_batch: bool = False,
    ) -> None:
        """`num_positions` is the model's; the prompt may fill them all, but not more.

        `leader_id`: a sequence with the same prompt, added before; this one waits for its prefill, to share its blocks.
        """
        assert 1 <= len(prompt_token_ids) <= num_positions, "the door lets no other prompt in"
        self.sequence_id = sequence_id
        self.params = params
        self.seed = seed
        self.leader_id = leader_id
        """Whose prefill it waits for; None from when it does not."""
        self.priority = priority
        self.caller = caller
        """Whose share of the service it takes."""
        self.is_batch = is_batch
        """Nobody waits for it now: it has what others leave."""
        self.token_ids = list(prompt_token_ids)
        """Prompt and completion."""
        self.num_prompt_tokens = len(prompt_token_ids)
        self.max_num_tokens = min(self.num_prompt_tokens + params.max_tokens, num_positions)
        """Of prompt and completion: with this many it ends by length."""
        self.ending_tokens = EndingTokens.of(params, eos_token_ids=eos_token_ids)

        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.stop_token_id: int | None = None
        """The token that ended it, and its last one: the model's end of text, or one of `stop_token_ids`."""
        self.arrival = -1
        """Its place in the order of arrival."""
        self.virtual_start = 0.0
        """Its place among its equals: see `FairShares`."""
        self.is_admitted_before = False
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache when it was first admitted. (Later it finds its own.)"""
        self.num_computed_tokens = 0
        self.num_scored_tokens = params.first_scored_token - 1
        """Prompt tokens computed with their successors scored: a preemption does not make these scores come again.
        Those whose successors nobody wants scored count from the start."""
        self.block_ids: list[int] = []
        self.drafter: Drafter | None = None
        """From when it first was one of few."""
        self._digests: list[bytes] = []

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """Who has the lower one goes first: the lower standing, then the earlier virtual start, then the arrival."""
        return self.is_batch, self.priority, self.virtual_start, self.arrival

    @property
    def priority_class(self) -> tuple[bool, int]:
        """What goes before all shares: batch work is behind all other, then the lower priority is first."""
        return self.is_batch, self.priority

    @property
    def caller_key(self) -> tuple[bool, str]:
        """Whose places are counted together: a caller's batch work by itself."""
        return self.is_batch, self.caller

    @property
    def num_completion_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_blocks_at_most(self) -> int:
        """Blocks that it can ever need. The last token that ends it is drawn, but never computed."""
        return num_blocks_for(max(self.num_prompt_tokens, self.max_num_tokens - 1))

    @property
    def has_unscored_tokens(self) -> bool:
        """Whether prompt log-probabilities were asked for and are not all handed out."""
        return self.params.num_prompt_logprobs is not None and self.num_scored_tokens < self.num_prompt_tokens - 1

    @property
    def num_cacheable_tokens(self) -> int:
        """Tokens that may come from the prefix cache, in whole blocks.

        At least one token is left to compute, for its logits; and every prompt token that is still to be scored is.
        """
        num_tokens = len(self.token_ids) - 1
        if self.has_unscored_tokens:
            num_tokens = self.num_scored_tokens
        return num_tokens // BLOCK_SIZE * BLOCK_SIZE

    def digest(self, index: int) -> bytes:
        """Of its full block `index`; see `block_digest`."""
        digests = self._digests
        while len(digests) <= index:
            begin = len(digests) * BLOCK_SIZE
            tokens = self.token_ids[begin : begin + BLOCK_SIZE]
            digests.append(block_digest(digests[-1] if digests else b"", tokens))
        return digests[index]

    def plan_row(self, num_new_tokens: int) -> PlanRow:
        """The row of a plan that computes its next `num_new_tokens` tokens."""
        num_computed_tokens = self.num_computed_tokens
        params = self.params
        num_prompt_logprobs = params.num_prompt_logprobs
        if num_prompt_logprobs is not None and not (
            self.num_scored_tokens <= num_computed_tokens < self.num_prompt_tokens - 1
        ):
            num_prompt_logprobs = None
        return PlanRow(
            sequence_id=self.sequence_id,
            token_ids=self.token_ids,
            num_prompt_tokens=self.num_prompt_tokens,
            num_computed_tokens=num_computed_tokens,
            num_new_tokens=num_new_tokens,
            block_ids=self.block_ids,
            params=params,
            seed=self.seed,
            is_sampling=num_computed_tokens + num_new_tokens == len(self.token_ids) < self.max_num_tokens,
            num_prompt_logprobs=num_prompt_logprobs,
        )


rank_of = attrgetter("rank")
"""Of a sequence: what those that wait, and those that run, are sorted by."""


@dataclass(slots=True, kw_only=True)
class SequenceUpdate:
    """What a step gave to one sequence. If that ended it, `sequence.finish_reason` is set."""

    sequence: Sequence
    token_id: int | None
    """Drawn, and already the last of `sequence.token_ids`."""
    result: RowResult
    is_from_draft: bool = False
    """It took no step of its own, for the token before was drafted right."""
