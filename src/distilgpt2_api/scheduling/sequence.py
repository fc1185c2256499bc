"""One sequence in flight."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from typing import Self

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.scheduling.blocks import block_digest, num_blocks_for
from distilgpt2_api.scheduling.drafter import Drafter


class SequenceStatus(Enum):
    WAITING = auto()
    """Holds no blocks: new, or preempted."""
    RUNNING = auto()
    """Holds blocks for all of its tokens except possibly the last, and possibly more blocks for drafts."""
    FINISHED = auto()
    """Holds no blocks any more."""


@dataclass(frozen=True, slots=True)
class EndingTokens:
    """Tokens that end a sequence."""

    all: frozenset[int]
    requested: frozenset[int]
    """The request's `stop_token_ids`. They include the model's end of text only if the request does."""

    @classmethod
    def of(cls, params: SamplingParams, *, eos_token_ids: Iterable[int]) -> Self:
        """Compiled once for all sequences of a request."""
        return params.derive(cls, lambda: cls._make(params, eos_token_ids))

    @classmethod
    def _make(cls, params: SamplingParams, eos_token_ids: Iterable[int]) -> Self:
        requested = frozenset(params.stop_token_ids)
        return cls(requested.union(eos_token_ids if params.is_ended_by_eos else ()), requested)


class Sequence:
    """Mutable state of one sequence. Only the scheduler writes it."""

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
        "mirostat_mu",
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
        """`num_positions` is the model's; the prompt has at most that many tokens.

        `leader_id`: a sequence added before with the same prompt. This one waits for its prefill and shares its blocks.
        """
        assert 1 <= len(prompt_token_ids) <= num_positions, "validation admits no other prompt"
        self.sequence_id = sequence_id
        self.params = params
        self.seed = seed
        self.leader_id = leader_id
        """The sequence for whose prefill it waits; None once it no longer does."""
        self.priority = priority
        self.caller = caller
        """The caller to whose fair share it is charged."""
        self.is_batch = is_batch
        """Batch work: it gets what other sequences leave."""
        self.token_ids = list(prompt_token_ids)
        """Prompt and completion."""
        self.num_prompt_tokens = len(prompt_token_ids)
        self.max_num_tokens = min(self.num_prompt_tokens + params.max_tokens, num_positions)
        """The sequence ends when prompt and completion have this many tokens."""
        self.ending_tokens = EndingTokens.of(params, eos_token_ids=eos_token_ids)

        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.stop_token_id: int | None = None
        """Its last token, if that ended it: the model's end of text, or one of `stop_token_ids`."""
        self.arrival = -1
        """Number of sequences that arrived before."""
        self.virtual_start = 0.0
        """Orders the sequences of one priority class: see `FairShares`."""
        self.is_admitted_before = False
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache at the first admission. (Later ones find the sequence's own.)"""
        self.num_computed_tokens = 0
        self.num_scored_tokens = params.first_scored_token - 1
        """Prompt tokens whose successors are scored, or need not be. A sequence that was preempted does not score them
        again."""
        self.block_ids: list[int] = []
        self.mirostat_mu = 2 * params.mirostat_tau if params.mirostat else None
        """The largest surprisal of its next token, in bits."""
        self.drafter: Drafter | None = None
        """Set when the sequence first may get drafts."""
        self._digests: list[bytes] = []

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """The sequence with the lower rank goes first: by priority class, virtual start and arrival."""
        return self.is_batch, self.priority, self.virtual_start, self.arrival

    @property
    def priority_class(self) -> tuple[bool, int]:
        """Takes precedence over fair shares: batch work comes last, then the lower priority goes first."""
        return self.is_batch, self.priority

    @property
    def caller_key(self) -> tuple[bool, str]:
        """Sequences with one key share their slots: those of one caller, its batch work separately."""
        return self.is_batch, self.caller

    @property
    def num_completion_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_blocks_at_most(self) -> int:
        """Blocks that it needs at most. The last token is sampled, but never computed."""
        return num_blocks_for(max(self.num_prompt_tokens, self.max_num_tokens - 1))

    @property
    def has_unscored_tokens(self) -> bool:
        """Whether requested prompt log-probabilities are still to be computed."""
        return self.params.num_prompt_logprobs is not None and self.num_scored_tokens < self.num_prompt_tokens - 1

    @property
    def num_cacheable_tokens(self) -> int:
        """Tokens that may come from the prefix cache, in whole blocks.

        At least one token must be computed, for its logits, and so must every prompt token that is still to be scored.
        """
        num_tokens = len(self.token_ids) - 1
        if self.has_unscored_tokens:
            num_tokens = self.num_scored_tokens
        return num_tokens // BLOCK_SIZE * BLOCK_SIZE

    def digest(self, index: int) -> bytes:
        """The digest of its full block `index`; see `block_digest`."""
        digests = self._digests
        while len(digests) <= index:
            begin = len(digests) * BLOCK_SIZE
            tokens = self.token_ids[begin : begin + BLOCK_SIZE]
            digests.append(block_digest(digests[-1] if digests else b"", tokens))
        return digests[index]

    def plan_row(self, num_new_tokens: int) -> PlanRow:
        """The plan row that computes its next `num_new_tokens` tokens."""
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
            mirostat_mu=self.mirostat_mu,
            num_prompt_logprobs=num_prompt_logprobs,
        )


rank_of = attrgetter("rank")
"""Sort key of waiting and running sequences."""


@dataclass(slots=True, kw_only=True)
class SequenceUpdate:
    """The result of a step for one sequence. If it ended the sequence, `sequence.finish_reason` is set."""

    sequence: Sequence
    token_id: int | None
    """The sampled token, already appended to `sequence.token_ids`."""
    result: RowResult
    is_from_draft: bool = False
    """The token was sampled behind an accepted draft, in the same step as the token before."""
