"""Continuous batching: which tokens of which sequences the next step computes (Orca, 2022; vLLM, 2023)."""

from __future__ import annotations

from collections.abc import Iterator

from distilgpt2_api.core.config import BLOCK_SIZE, EngineConfig
from distilgpt2_api.core.events import ScheduleStats
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.plan import PlanRow, StepPlan, StepResult
from distilgpt2_api.core.step_budget import prompt_budget
from distilgpt2_api.scheduling.fairness import FairShares
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus, SequenceUpdate
from distilgpt2_api.scheduling.sequence_pool import SequencePool
from distilgpt2_api.scheduling.speculation import add_drafts

QUIET_STEPS = 32
"""So many steps without other work, and batch work has whole ones again: who has just had an answer often asks on."""


class Scheduler:
    """Owner of the sequences in flight and of the blocks that they hold. One thread's.

    Sequences have a rank: batch work comes last, the lower priority goes first, among equals whose caller has had less
    (`FairShares`), then the earlier arrival. Each step takes one token of every sequence that decodes, then as much of
    the prefills as its budget and the gaps of these streams allow (`step_budget`), then new sequences, by rank all of
    them. A sequence is admitted with blocks for all of its tokens, so only decoding ever asks for more, and only while
    the step has tokens left, so that there are never more rows than tokens. When none is free, the last in rank among
    the running loses its blocks and waits again, in front of its equals: it recomputes later what it can't find in the
    prefix cache. For a newcomer's sake that happens only where its caller has nothing running and another has several.
    So the first in rank always advances, and nobody starves but behind lower priorities that never cease to come.

    Batch work has what the others leave: places, blocks, and of a step's tokens `max_batch_step_tokens` at most while
    they have any, and for some steps more: who comes during a long step waits for its end. It gives way to whoever
    comes; what of it keeps its blocks rests until it is its turn.

    Where few decode and nobody waits, their rows get drafts of what may come next (`speculation`), out of what the step
    has left.
    """

    def __init__(self, config: EngineConfig, *, num_blocks: int, num_eager_blocks: int | None = None) -> None:
        """`num_blocks` hold at least one context of the model, so that any sequence fits when it runs alone.

        `num_eager_blocks`: see `BlockPool`.
        """
        self._config = config
        self._pool = SequencePool(config, num_blocks=num_blocks, num_eager_blocks=num_eager_blocks)
        self._sequences: dict[int, Sequence] = {}
        self._shares = FairShares()
        self._planned: list[Sequence] = []
        """Whose the rows of the last plan are."""
        self._num_arrivals = 0
        self._num_quiet_steps = QUIET_STEPS
        """Since the last one that had rows of anything but batch work."""

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence holds, cached ones included."""
        return self._pool.blocks.num_free

    def add(self, sequence: Sequence, *, is_continuation: bool = False) -> None:
        """Queue a new sequence, of an id never used.

        A continuation goes on with what another sequence computed, and counts against its caller with its completion.
        """
        assert sequence.sequence_id not in self._sequences, "sequence ids are unique"
        assert sequence.num_blocks_at_most <= self._pool.blocks.num_blocks, "the KV cache holds a context"
        sequence.arrival = self._num_arrivals
        self._num_arrivals += 1
        num_tokens = sequence.params.max_tokens if is_continuation else sequence.max_num_tokens
        sequence.virtual_start = self._shares.start_of(
            sequence.priority_class, sequence.caller, num_tokens, is_continuation=is_continuation
        )
        self._sequences[sequence.sequence_id] = sequence
        leader = self._sequences.get(sequence.leader_id) if sequence.leader_id is not None else None
        self._pool.queue(sequence, leader)

    def schedule(self) -> StepPlan | None:
        """The next step, or None if there is nothing to do.

        A plan that never sees its update, for its step failed, leaves no trace: the next one is made like it.
        """
        self._planned = []
        rows: list[PlanRow] = []
        self._pool.release_draft_blocks()
        self._pool.preempt_batch_for_waiting(self._shares, max_tokens=self._config.max_step_tokens)
        self._pool.admit_unserved_callers(self._shares)
        num_left = self._plan(rows, self._config.max_step_tokens, is_batch=False)
        num_rows = len(rows)
        batch_budget = num_left
        if rows:
            batch_budget = min(num_left, self._config.max_batch_step_tokens)
        elif self._num_quiet_steps < QUIET_STEPS:
            batch_budget = min(num_left, max(1, self._config.max_batch_step_tokens))
        num_left_of_batch = self._plan(rows, batch_budget, is_batch=True)
        if not rows:
            return None
        if self._config.max_draft_tokens and not self._pool.waiting and num_rows in (0, len(rows)):
            budget = num_left if num_rows else num_left_of_batch
            add_drafts(rows, self._planned, self._pool, max_draft_tokens=self._config.max_draft_tokens, budget=budget)
        return StepPlan(rows=rows)

    def update(self, plan: StepPlan, result: StepResult) -> list[SequenceUpdate]:
        """Take in what the last plan's step gave: one update for each row that drew a token, ended, failed or scored
        its prompt; what drafts gained comes after it (`apply_accepted_drafts`). Rows of ended sequences are ignored.
        """
        updates = []
        # Batch work comes last: whoever is first says whether there is other.
        self._num_quiet_steps = self._num_quiet_steps + 1 if self._planned[0].is_batch else 0
        for sequence, row, row_result in zip(self._planned, plan.rows, result.rows, strict=True):
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            if row_result.error is not None:
                self.finish(sequence.sequence_id, FinishReason.ERROR)
            else:
                self._advance(sequence, row)
                if row.draft_token_ids:
                    assert sequence.drafter is not None
                    sequence.drafter.note(num_drafted=len(row.draft_token_ids), num_accepted=len(row_result.accepted))
                if row.is_sampling:
                    assert row_result.token_id is not None, "a sampling row draws"
                    self._append(sequence, row_result.token_id)
                elif sequence.num_computed_tokens == sequence.max_num_tokens:  # the prompt was all
                    self.finish(sequence.sequence_id, FinishReason.LENGTH)
                elif row.num_prompt_logprobs is None:
                    continue
            updates.append(SequenceUpdate(sequence=sequence, token_id=row_result.token_id, result=row_result))
        self._planned = []
        return updates

    def apply_accepted_drafts(self, update: SequenceUpdate) -> Iterator[SequenceUpdate]:
        """Take in what the row of an update drew behind its drafts, a token each time, until the sequence has ended.

        Whoever ends it between two, or goes no further, loses nothing but what is not taken in.
        """
        sequence = update.sequence
        for result in update.result.accepted:
            if sequence.status is not SequenceStatus.RUNNING:
                return
            if result.error is not None:
                self.finish(sequence.sequence_id, FinishReason.ERROR)
            else:
                assert result.token_id is not None, "a sampling row draws"
                begin = sequence.num_computed_tokens
                sequence.num_computed_tokens = begin + 1  # the token before, a draft that was right
                self._pool.note_computed(sequence, begin, begin + 1)
                self._append(sequence, result.token_id)
            yield SequenceUpdate(sequence=sequence, token_id=result.token_id, result=result, is_from_draft=True)

    def take_stats(self, plan: StepPlan) -> ScheduleStats:
        """The statistics of the step that computed `plan`, once its results are taken in. Call it once a step."""
        return self._pool.take_stats(plan)

    def finish(self, sequence_id: int, reason: FinishReason) -> bool:
        """End a sequence and free its blocks at once; False if there is none of that id (any more).

        Legal at any time, also between `schedule()` and `update()`. The last one's end proves that no block was lost.
        """
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return False
        self._pool.leave(sequence)
        sequence.finish_reason = reason
        self._shares.note_finished(sequence)
        if not self._sequences:
            self.check_idle()
        return True

    def check_idle(self) -> None:
        """Raise AssertionError unless every block is free or cached."""
        num_held = self._pool.blocks.num_blocks - self._pool.blocks.num_free
        if num_held or self._sequences:
            raise AssertionError(f"idle, but {num_held} blocks are held and {len(self._sequences)} sequences in flight")

    def check_accounting(self) -> None:
        """Raise AssertionError unless the books of blocks and sequences agree. Slow: for tests."""
        self._pool.check(self._sequences.values())

    def _plan(self, rows: list[PlanRow], budget: int, *, is_batch: bool) -> int:
        """Plan one of the two kinds, within `budget` tokens; what is left of it. Batch work comes second."""
        num_rows = len(rows)
        prefills = self._plan_decodes(rows, budget, is_batch=is_batch)
        num_streams = len(rows) - num_rows
        budget -= num_streams
        num_kept = 0
        if not is_batch:  # nobody watches the gaps of batch work
            num_kept = budget - prompt_budget(budget, num_streams, len(prefills) + self._pool.num_waiting)
            budget -= num_kept
        for sequence in prefills:
            if not budget:
                break
            budget -= self._plan_chunk(sequence, budget, rows)
        while budget and (newcomer := self._pool.admit_first(self._shares, is_batch=is_batch)) is not None:
            budget -= self._plan_chunk(newcomer, budget, rows)
        return budget + num_kept

    def _plan_decodes(self, rows: list[PlanRow], budget: int, *, is_batch: bool) -> list[Sequence]:
        """Plan a token of each sequence that lacks only one; the others. Batch work that has no token left rests."""
        prefills = []
        running = self._pool.running
        max_rows = len(rows) + budget
        index = len(running) - self._pool.num_running_batch if is_batch else 0
        while index < len(running) and running[index].is_batch is is_batch:  # preemption takes from its end
            sequence = running[index]
            num_computed = sequence.num_computed_tokens
            if len(sequence.token_ids) - num_computed > 1:
                prefills.append(sequence)
            elif len(rows) < max_rows or not is_batch:
                if num_computed == len(sequence.block_ids) * BLOCK_SIZE:
                    self._pool.preempt_until_block_free()
                    if index == len(running):  # it was the last in rank itself
                        break
                    sequence.block_ids.append(self._pool.blocks.allocate())
                self._planned.append(sequence)
                rows.append(sequence.plan_row(1))
            index += 1
        return prefills

    def _plan_chunk(self, sequence: Sequence, budget: int, rows: list[PlanRow]) -> int:
        """Plan as much of a prefill as the budget allows; how much that is."""
        end = len(sequence.token_ids)
        if sequence.num_computed_tokens < sequence.num_scored_tokens and sequence.has_unscored_tokens:
            end = sequence.num_scored_tokens  # computed again without scores up to there, then with
        num_new_tokens = min(end - sequence.num_computed_tokens, budget)
        self._planned.append(sequence)
        rows.append(sequence.plan_row(num_new_tokens))
        return num_new_tokens

    def _advance(self, sequence: Sequence, row: PlanRow) -> None:
        """Count what the row computed, and cache the blocks that it filled."""
        begin = row.num_computed_tokens
        sequence.num_computed_tokens = end = begin + row.num_new_tokens
        if row.num_prompt_logprobs is not None:
            sequence.num_scored_tokens = end
        self._pool.note_computed(sequence, begin, end)

    def _append(self, sequence: Sequence, token_id: int) -> None:
        """Append a token drawn; end the sequence if it does."""
        sequence.token_ids.append(token_id)
        if token_id in sequence.ending_tokens.all:
            sequence.stop_token_id = token_id
            self.finish(sequence.sequence_id, FinishReason.STOP)
        elif len(sequence.token_ids) == sequence.max_num_tokens:
            self.finish(sequence.sequence_id, FinishReason.LENGTH)
