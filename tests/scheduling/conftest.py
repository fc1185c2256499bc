"""A scheduler with a fake runner that checks every plan."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any
from zlib import crc32

import pytest
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, StepResult, TokenLogprobs
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus, SequenceUpdate

VOCAB_SIZE = 40
EOS = 0
NUM_POSITIONS = 256


def draw(token_ids: list[int], seed: int) -> int:
    """The "model": a token that depends only on the seed and on every token before it.

    With a seed above 99, it mostly depends on the last two tokens only, so that text repeats itself. With one above
    199, text always repeats: the token is the third from the end.
    """
    if seed > 199:
        return token_ids[-3]
    if seed > 99 and (crc32(array("I", [1, seed, *token_ids]).tobytes()) % 16):
        token_ids = [token_id % 4 for token_id in token_ids[-2:]]
    return crc32(array("I", [seed, *token_ids]).tobytes()) % VOCAB_SIZE


class World:
    """A scheduler, a KV cache that records which token was written where, and the checks that hold in every step."""

    def __init__(self, **limits: Any) -> None:
        num_blocks, num_eager_blocks = limits.pop("num_blocks", 64), limits.pop("num_eager_blocks", None)
        self.config = replace(ENGINE_CONFIG, **limits)
        self.scheduler = Scheduler(self.config, num_blocks=num_blocks, num_eager_blocks=num_eager_blocks)
        self.sequences: dict[int, Sequence] = {}
        self.scores: dict[int, list[TokenLogprobs]] = defaultdict(list)
        self.failing_ids: set[int] = set()
        self.num_steps = 0
        self.num_tokens_computed = 0
        self.num_drafted = 0
        self.num_accepted = 0
        self.num_preempted = 0
        self.num_prefix_queried_tokens = 0
        self.num_prefix_hit_tokens = 0
        self.kv_cache_usage = 0.0
        self._written: dict[tuple[int, int], tuple[int, int]] = {}

    def add(
        self,
        prompt: list[int] | range,
        *,
        seed: int = 0,
        leader: Sequence | None = None,
        priority: int = 0,
        caller: str = "",
        is_batch: bool = False,
        is_continuation: bool = False,
        num_positions: int = NUM_POSITIONS,
        **params: Any,
    ) -> Sequence:
        sequence = Sequence(
            sequence_id=len(self.sequences) + 100,
            prompt_token_ids=tuple(prompt),
            params=SamplingParams(**params),
            seed=seed,
            num_positions=num_positions,
            eos_token_ids=(EOS,),
            leader_id=leader.sequence_id if leader else None,
            priority=priority,
            caller=caller,
            is_batch=is_batch,
        )
        self.scheduler.add(sequence, is_continuation=is_continuation)
        self.sequences[sequence.sequence_id] = sequence
        return sequence

    def schedule(self) -> StepPlan:
        waiting = [sequence for sequence in self.sequences.values() if self.is_waiting(sequence)]
        served = {s.caller_key for s in self.sequences.values() if s.status is SequenceStatus.RUNNING}
        plan = self.scheduler.schedule()
        assert plan is not None
        self._take_stats(plan)
        self._check(plan)
        self._check_order([sequence for sequence in waiting if not served or sequence.caller_key in served])
        return plan

    def update(self, plan: StepPlan, *, max_accepted: int | None = None) -> list[SequenceUpdate]:
        """Compute a plan and apply its result, with at most `max_accepted` accepted drafts per sequence."""
        self.num_steps += 1
        self.num_tokens_computed += plan.num_tokens
        updates = []
        for update in self.scheduler.update(plan, self.compute(plan)):
            self.scores[update.sequence.sequence_id].extend(update.result.prompt_logprobs)
            updates += [update, *islice(self.scheduler.apply_accepted_drafts(update), max_accepted)]
        self.num_drafted += plan.num_draft_tokens
        self.num_accepted += sum(update.is_from_draft for update in updates)
        self._take_stats(plan)
        self.scheduler.check_accounting()
        return updates

    @property
    def num_running(self) -> int:
        """Except batch work, as in `num_waiting`."""
        return sum(s.status is SequenceStatus.RUNNING and not s.is_batch for s in self.sequences.values())

    @property
    def num_waiting(self) -> int:
        return sum(self.is_waiting(s) and not s.is_batch for s in self.sequences.values())

    @property
    def num_batch(self) -> int:
        """Sequences of batch work, waiting and running."""
        return sum(s.status is not SequenceStatus.FINISHED and s.is_batch for s in self.sequences.values())

    def compute(self, plan: StepPlan) -> StepResult:
        return StepResult(rows=[self._compute(row) for row in plan.rows])

    def step(self) -> list[SequenceUpdate]:
        return self.update(self.schedule())

    def run(self, max_steps: int = 10_000) -> None:
        """Step until no work is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                self.scheduler.check_idle()
                return
            self.step()
        pytest.fail(f"not done after {max_steps} steps")

    @staticmethod
    def chunks(plan: StepPlan) -> dict[int, int]:
        """Number of tokens that each sequence of a plan computes."""
        return {row.sequence_id: row.num_new_tokens for row in plan.rows}

    @staticmethod
    def is_waiting(sequence: Sequence) -> bool:
        return sequence.status is SequenceStatus.WAITING

    def _take_stats(self, plan: StepPlan) -> None:
        stats = self.scheduler.take_stats(plan)
        counts = stats.num_running, stats.num_waiting, stats.num_batch
        assert counts == (self.num_running, self.num_waiting, self.num_batch)
        self.num_preempted += stats.num_preempted
        self.num_prefix_queried_tokens += stats.num_prefix_queried_tokens
        self.num_prefix_hit_tokens += stats.num_prefix_hit_tokens
        self.kv_cache_usage = stats.kv_cache_usage

    def _check(self, plan: StepPlan) -> None:
        running = [s for s in self.sequences.values() if s.status is SequenceStatus.RUNNING]
        rows = {row.sequence_id: row for row in plan.rows}
        assert len(rows) == len(plan.rows), "a sequence has at most one row"
        assert 0 < plan.num_tokens <= self.config.max_step_tokens
        batch = [
            row.num_new_tokens + len(row.draft_token_ids)
            for row in plan.rows
            if self.sequences[row.sequence_id].is_batch
        ]
        if len(batch) < len(plan.rows):
            assert sum(batch) <= self.config.max_batch_step_tokens, "batch work exceeds its budget"
        assert len(running) <= self.config.max_num_sequences
        holders = defaultdict(set)
        for sequence in running:
            for block_id in sequence.block_ids:
                holders[block_id].add(sequence.sequence_id)
            if sequence.num_computed_tokens == len(sequence.token_ids) - 1 and not sequence.is_batch:
                assert sequence.sequence_id in rows, "a decode stalled"
        for row in plan.rows:
            end = row.num_computed_tokens + row.num_new_tokens
            assert row.num_new_tokens >= 1
            assert end <= len(row.token_ids)
            end += len(row.draft_token_ids)
            assert end <= len(row.block_ids) * BLOCK_SIZE, "the block table covers the row"
            if row.draft_token_ids:
                self._check_drafts(row)
            for position in range(row.num_computed_tokens, end):
                assert holders[row.block_ids[position // BLOCK_SIZE]] == {row.sequence_id}, "writers share no block"

    def _check_drafts(self, row: PlanRow) -> None:
        """Drafts fit the runner's contract and the sequence's length, also with the token sampled behind them."""
        sequence = self.sequences[row.sequence_id]
        assert row.is_sampling
        assert row.num_new_tokens == 1
        assert row.num_prompt_logprobs is None
        assert len(row.draft_token_ids) <= self.config.max_draft_tokens
        assert len(row.token_ids) + len(row.draft_token_ids) + 1 <= sequence.max_num_tokens
        assert len(row.block_ids) <= sequence.num_blocks_at_most

    def _check_order(self, waiting: list[Sequence]) -> None:
        """No sequence was admitted ahead of a lower rank that still waits.

        Sequences of callers that had none running are not among `waiting`.
        """
        admitted = [s.rank for s in waiting if not self.is_waiting(s)]
        left = [s.rank for s in self.sequences.values() if self.is_waiting(s) and s.leader_id is None]
        assert not admitted or not left or max(admitted) < min(left), "a sequence was overtaken"

    def _compute(self, row: PlanRow) -> RowResult:
        end = row.num_computed_tokens + row.num_new_tokens
        token_ids = [*row.token_ids, *row.draft_token_ids]
        for position in range(end + len(row.draft_token_ids)):
            slot = row.block_ids[position // BLOCK_SIZE], position % BLOCK_SIZE
            content = position, crc32(array("I", token_ids[: position + 1]).tobytes())
            if position >= row.num_computed_tokens:
                self._written[slot] = content
            assert self._written[slot] == content, "the cache holds this sequence's keys and values"
        result = RowResult()
        if row.sequence_id in self.failing_ids:
            return RowResult(error="not finite")
        if row.is_sampling:
            result.token_id = draw([*row.token_ids], row.seed)
            result.accepted = self._draw_behind_drafts(row, result.token_id)
        if row.num_prompt_logprobs is not None:
            result.prompt_logprobs = [
                TokenLogprobs(token_id=row.token_ids[position], logprob=-float(position))
                for position in range(row.num_computed_tokens + 1, min(end + 1, row.num_prompt_tokens))
            ]
        return result

    @staticmethod
    def _draw_behind_drafts(row: PlanRow, token_id: int) -> list[RowResult]:
        accepted: list[RowResult] = []
        for num_drafts, draft in enumerate(row.draft_token_ids, 1):
            if token_id != draft:
                break
            token_id = draw([*row.token_ids, *row.draft_token_ids[:num_drafts]], row.seed)
            accepted.append(RowResult(token_id=token_id))
        return accepted


def undisturbed(sequence: Sequence) -> tuple[list[int], FinishReason]:
    """The tokens and finish reason of a sequence that runs alone."""
    params = sequence.params
    token_ids = sequence.token_ids[: sequence.num_prompt_tokens]
    num_left = min(params.max_tokens, NUM_POSITIONS - len(token_ids))
    for _ in range(num_left):
        token_ids.append(draw(token_ids, sequence.seed))
        if token_ids[-1] in params.stop_token_ids or (token_ids[-1] == EOS and params.is_ended_by_eos):
            return token_ids, FinishReason.STOP
    return token_ids, FinishReason.LENGTH


@pytest.fixture
def build_world() -> Callable[..., World]:
    return World


@pytest.fixture
def assert_undisturbed() -> Callable[[Sequence], None]:
    """Check that a finished sequence has the tokens that it would have alone."""

    def check(sequence: Sequence) -> None:
        assert (sequence.token_ids, sequence.finish_reason) == undisturbed(sequence)

    return check
