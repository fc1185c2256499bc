"""Continuous batching: decides which tokens of which sequences the next step computes (Orca, 2022; vLLM, 2023)."""

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
"""After this many steps without other work, batch work gets whole steps again: clients often send a next request
soon."""


class Scheduler:
    """Owns the sequences in flight and the blocks that they hold. One thread only.

    **Order.** Sequences are ordered by rank: batch work last, then the lower priority first, then the caller that has
    received less (`FairShares`), then the earlier arrival.

    **Steps.** Each step computes one token of every decoding sequence, then as much of the prefills as the token budget
    and the inter-token latency of the decoding sequences allow (`step_budget`), then new sequences; each in order of
    rank. There are never more rows than tokens.

    **Preemption.** A sequence is admitted with blocks for all of its tokens, so only decoding needs more. If no block
    is free, the running sequence with the last rank loses its blocks and waits again, ahead of new arrivals of its
    priority. It later recomputes what the prefix cache no longer holds. A new arrival preempts another sequence only if
    its caller has none running and another caller has several. So the first in rank always advances, and a sequence
    starves only behind an endless supply of lower priorities.

    **Batch work** gets the slots, blocks and tokens that others leave: at most `max_batch_step_tokens` of a step while
    others run and for a few steps after, because a new arrival has to wait for the end of a long step. It is preempted
    first. Batch work without tokens in a step keeps its blocks, if no other sequence needs them.

    **Drafts.** If few sequences decode and none waits, their rows get draft tokens (`speculation`) from the step's
    remaining budget.
    """

    def __init__(self, config: EngineConfig, *, num_blocks: int, num_eager_blocks: int | None = None) -> None:
        """`num_blocks` hold at least one context of the model, so that any sequence fits when it runs alone.

        `num_eager_blocks`: see `BlockPool`.
        """
        self._config = config
        self.max_num_sequences = config.max_num_sequences
        self._pool = SequencePool(config, num_blocks=num_blocks, num_eager_blocks=num_eager_blocks)
        self._sequences: dict[int, Sequence] = {}
        self._shares = FairShares()
        self._planned: list[Sequence] = []
        """The sequences of the last plan's rows."""
        self._num_arrivals = 0
        self._num_quiet_steps = QUIET_STEPS
        """Steps since the last one that had rows other than batch work."""

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence holds, including cached ones."""
        return self._pool.blocks.num_free

    def add(self, sequence: Sequence, *, is_continuation: bool = False) -> None:
        """Queue a new sequence, whose id was never used before.

        A continuation starts from what another sequence computed, so only its completion is charged to its caller.
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
        """Plan the next step. Returns None if there is nothing to do.

        If the step fails and the plan gets no update, the next plan is made as if this one had not been.
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
        """Apply the results of the last plan. Returns an update for each row that sampled a token, ended, failed or
        scored its prompt; `apply_accepted_drafts` follows for each. Rows of ended sequences are ignored.
        """
        updates = []
        # Batch work comes last, so the first row shows whether there is other work.
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
                    assert row_result.token_id is not None, "a sampling row has a token"
                    if row_result.mirostat_mu is not None:
                        sequence.mirostat_mu = row_result.mirostat_mu
                    self._append(sequence, row_result.token_id)
                elif sequence.num_computed_tokens == sequence.max_num_tokens:  # the prompt was all
                    self.finish(sequence.sequence_id, FinishReason.LENGTH)
                elif row.num_prompt_logprobs is None:
                    continue
            updates.append(SequenceUpdate(sequence=sequence, token_id=row_result.token_id, result=row_result))
        self._planned = []
        return updates

    def apply_accepted_drafts(self, update: SequenceUpdate) -> Iterator[SequenceUpdate]:
        """Apply the tokens that an update's row sampled behind accepted drafts, one per iteration, until the sequence
        ends.

        The caller may end the sequence, or stop iterating, after any token: later tokens are then not applied.
        """
        sequence = update.sequence
        for result in update.result.accepted:
            if sequence.status is not SequenceStatus.RUNNING:
                return
            if result.error is not None:
                self.finish(sequence.sequence_id, FinishReason.ERROR)
            else:
                assert result.token_id is not None, "a sampling row has a token"
                begin = sequence.num_computed_tokens
                sequence.num_computed_tokens = begin + 1  # the token before, an accepted draft
                self._pool.note_computed(sequence, begin, begin + 1)
                self._append(sequence, result.token_id)
            yield SequenceUpdate(sequence=sequence, token_id=result.token_id, result=result, is_from_draft=True)

    def take_stats(self, plan: StepPlan) -> ScheduleStats:
        """The statistics of the step that computed `plan`. Call it once per step, after its results are applied."""
        return self._pool.take_stats(plan)

    def finish(self, sequence_id: int, reason: FinishReason) -> bool:
        """End a sequence and free its blocks. Returns False if no sequence in flight has that id.

        Allowed at any time, also between `schedule()` and `update()`. After the last sequence, checks that no block
        leaked.
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
        """Raise AssertionError unless the states of blocks and sequences agree. Slow: for tests."""
        self._pool.check(self._sequences.values())

    def _plan(self, rows: list[PlanRow], budget: int, *, is_batch: bool) -> int:
        """Plan all other work, or then batch work, within `budget` tokens. Returns the tokens that are left."""
        num_rows = len(rows)
        prefills = self._plan_decodes(rows, budget, is_batch=is_batch)
        num_streams = len(rows) - num_rows
        budget -= num_streams
        num_kept = 0
        if not is_batch:  # no client waits for the tokens of batch work
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
        """Plan a row for each decoding sequence. Returns the others. Batch work beyond the budget is skipped."""
        prefills = []
        running = self._pool.running
        max_rows = len(rows) + budget
        index = len(running) - self._pool.num_running_batch if is_batch else 0
        while index < len(running) and running[index].is_batch is is_batch:  # preemption shortens it
            sequence = running[index]
            num_computed = sequence.num_computed_tokens
            if len(sequence.token_ids) - num_computed > 1:
                prefills.append(sequence)
            elif len(rows) < max_rows or not is_batch:
                if num_computed == len(sequence.block_ids) * BLOCK_SIZE:
                    self._pool.preempt_until_block_free()
                    if index == len(running):  # this sequence was the last in rank and is preempted
                        break
                    sequence.block_ids.append(self._pool.blocks.allocate())
                self._planned.append(sequence)
                rows.append(sequence.plan_row(1))
            index += 1
        return prefills

    def _plan_chunk(self, sequence: Sequence, budget: int, rows: list[PlanRow]) -> int:
        """Plan as much of a prefill as the budget allows. Returns the number of tokens."""
        end = len(sequence.token_ids)
        if sequence.num_computed_tokens < sequence.num_scored_tokens and sequence.has_unscored_tokens:
            end = sequence.num_scored_tokens  # recompute scored tokens without scores first
        num_new_tokens = min(end - sequence.num_computed_tokens, budget)
        self._planned.append(sequence)
        rows.append(sequence.plan_row(num_new_tokens))
        return num_new_tokens

    def _advance(self, sequence: Sequence, row: PlanRow) -> None:
        """Count the tokens that the row computed, and cache the blocks that they filled."""
        begin = row.num_computed_tokens
        sequence.num_computed_tokens = end = begin + row.num_new_tokens
        if row.num_prompt_logprobs is not None:
            sequence.num_scored_tokens = end
        self._pool.note_computed(sequence, begin, end)

    def _append(self, sequence: Sequence, token_id: int) -> None:
        """Append a sampled token. End the sequence if the token ends it."""
        sequence.token_ids.append(token_id)
        if token_id in sequence.ending_tokens.all:
            sequence.stop_token_id = token_id
            self.finish(sequence.sequence_id, FinishReason.STOP)
        elif len(sequence.token_ids) == sequence.max_num_tokens:
            self.finish(sequence.sequence_id, FinishReason.LENGTH)
