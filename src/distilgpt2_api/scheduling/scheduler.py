"""Continuous batching: which tokens of which sequences the next step computes (Orca, 2022; vLLM, 2023)."""

from __future__ import annotations

from bisect import insort

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.plan import PlanRow, StepPlan, StepResult
from distilgpt2_api.scheduling.blocks import BlockPool, num_blocks_for
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus, SequenceUpdate
from distilgpt2_api.scheduling.waiting import WaitingQueue


class Scheduler:
    """Owner of the sequences in flight and of the blocks that they hold. One thread's.

    Sequences have a rank: the lower priority goes first, and among equals the earlier arrival. Each step takes one
    token of every sequence that decodes, then as much of the prefills as its budget allows, then new sequences, by rank
    all of them. A sequence is admitted with blocks for all of its tokens, so only decoding ever asks for more, and only
    while the step has tokens left, so that there are never more rows than tokens. When none is free, the last in rank
    among the running loses its blocks and waits again, in front of its equals: it recomputes later what it can't find
    in the prefix cache. Nobody loses any for a newcomer's sake. The first in rank therefore always advances, and nobody
    starves but behind lower priorities that never cease to come.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        max_num_sequences: int,
        max_step_tokens: int,
        is_prefix_caching: bool = True,
        num_eager_blocks: int | None = None,
    ) -> None:
        self._pool = BlockPool(num_blocks, num_eager_blocks=num_eager_blocks)
        self._max_step_tokens = max_step_tokens
        self._max_num_sequences = max_num_sequences
        self._is_prefix_caching = is_prefix_caching
        self._sequences: dict[int, Sequence] = {}
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []
        """By rank."""
        self._planned: list[Sequence] = []
        """Whose the rows of the last plan are."""
        self._num_arrivals = 0
        self.num_preemptions = 0
        self.num_prefix_queried_tokens = 0
        """Prompt tokens of all sequences admitted."""
        self.num_prefix_hit_tokens = 0
        """How many of these the prefix cache had."""

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens to compute of all that wait: prompts, and completions that a preemption threw back."""
        return self._waiting.num_tokens

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence holds, cached ones included."""
        return self._pool.num_free

    @property
    def kv_cache_usage(self) -> float:
        """Blocks held by sequences over all blocks, 0 to 1."""
        return 1.0 - self._pool.num_free / self._pool.num_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence, of an id never used. InvalidRequestError if the whole KV cache is too small for it."""
        assert sequence.sequence_id not in self._sequences, "sequence ids are unique"
        if sequence.num_blocks_at_most > self._pool.num_blocks:
            is_prompt_too_long = num_blocks_for(sequence.num_prompt_tokens) > self._pool.num_blocks
            raise InvalidRequestError(
                f"prompt and completion may reach {sequence.max_num_tokens} tokens, but the KV cache holds"
                f" {self._pool.num_blocks * BLOCK_SIZE}",
                param="prompt" if is_prompt_too_long else "max_tokens",
            )
        sequence.arrival = self._num_arrivals
        self._num_arrivals += 1
        self._sequences[sequence.sequence_id] = sequence
        leader = self._sequences.get(sequence.leader_id) if sequence.leader_id is not None else None
        if leader is not None and self._is_worth_waiting_for(leader, sequence):
            self._waiting.stand_aside(sequence, leader.sequence_id)
        else:
            self._waiting.append(sequence)

    def schedule(self) -> StepPlan | None:
        """The next step, or None if there is nothing to do.

        A plan that never sees its update, for its step failed, leaves no trace: the next one is made like it.
        """
        self._planned = []
        rows: list[PlanRow] = []
        prefills, num_preempted = self._plan_decodes(rows)
        budget = self._max_step_tokens - len(rows)
        for sequence in prefills:
            if not budget:
                break
            budget -= self._plan_chunk(sequence, budget, rows)
        while budget and (newcomer := self._admit_first()) is not None:
            budget -= self._plan_chunk(newcomer, budget, rows)
        return StepPlan(rows=rows, num_preempted=num_preempted) if rows else None

    def update(self, plan: StepPlan, result: StepResult) -> list[SequenceUpdate]:
        """Take in what the last plan's step gave: one update for each row that drew a token, ended,
        failed or scored its prompt.

        Rows of sequences that were finished meanwhile are ignored.
        """
        updates = []
        for sequence, row, row_result in zip(self._planned, plan.rows, result.rows, strict=True):
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            if row_result.error is not None:
                self.finish(sequence.sequence_id, FinishReason.ERROR)
            else:
                self._advance(sequence, row)
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

    def finish(self, sequence_id: int, reason: FinishReason) -> bool:
        """End a sequence and free its blocks at once; False if there is none of that id (any more).

        Legal at any time, also between `schedule()` and `update()`.
        """
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return False
        if sequence.status is SequenceStatus.RUNNING:
            self._running.remove(sequence)
            self._free(sequence)
        else:
            self._waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        self._waiting.release_followers(sequence_id)
        return True

    def check_idle(self) -> None:
        """Raise AssertionError unless every block is free or cached."""
        num_held = self._pool.num_blocks - self._pool.num_free
        if num_held or self._sequences:
            raise AssertionError(f"idle, but {num_held} blocks are held and {len(self._sequences)} sequences in flight")

    def check_accounting(self) -> None:
        """Raise AssertionError unless the books of blocks and sequences agree. Slow: for tests."""
        self._pool.check([sequence.block_ids for sequence in self._sequences.values()])
        waiting = list(self._waiting)
        is_sound = {
            "all wait or run": {*waiting, *self._running} == {*self._sequences.values()},
            "none twice": len(self._waiting) + len(self._running) == len(self._sequences),
            "status": all(s.status is SequenceStatus.WAITING for s in waiting)
            and all(s.status is SequenceStatus.RUNNING for s in self._running),
            "who waits holds nothing": not any(s.block_ids or s.num_computed_tokens for s in waiting),
            "block tables cover": all(s.num_computed_tokens <= len(s.block_ids) * BLOCK_SIZE for s in self._running),
            "order": self._running == sorted(self._running, key=_rank),
            "tokens waiting": self._waiting.num_tokens == sum(len(s.token_ids) for s in waiting),
        }
        if not all(is_sound.values()):
            raise AssertionError(f"sequence accounting is wrong: {[name for name, ok in is_sound.items() if not ok]}")

    def _plan_decodes(self, rows: list[PlanRow]) -> tuple[list[Sequence], int]:
        """Plan a token of each sequence that lacks only one; the others, and how many were preempted for room."""
        prefills = []
        num_preempted = 0
        running = self._running
        index = 0
        while index < len(running):  # preemption takes from its end
            sequence = running[index]
            num_computed = sequence.num_computed_tokens
            if len(sequence.token_ids) - num_computed > 1:
                prefills.append(sequence)
            else:
                if num_computed == len(sequence.block_ids) * BLOCK_SIZE:
                    num_preempted += self._make_room()
                    if index == len(running):  # it was the last in rank itself
                        break
                    sequence.block_ids.append(self._pool.allocate())
                self._planned.append(sequence)
                rows.append(sequence.plan_row(1))
            index += 1
        return prefills, num_preempted

    def _make_room(self) -> int:
        """Preempt until a block is free; how many it took. The last in rank first: none of them has a row yet."""
        num_preempted = 0
        while not self._pool.num_free:
            victim = self._running.pop()
            self._free(victim)
            victim.status = SequenceStatus.WAITING
            victim.num_computed_tokens = 0
            self._waiting.put_back(victim)
            self._waiting.release_followers(victim.sequence_id)
            num_preempted += 1
        self.num_preemptions += num_preempted
        return num_preempted

    def _plan_chunk(self, sequence: Sequence, budget: int, rows: list[PlanRow]) -> int:
        """Plan as much of a prefill as the budget allows; how much that is."""
        end = len(sequence.token_ids)
        if sequence.num_computed_tokens < sequence.num_scored_tokens and sequence.has_unscored_tokens:
            end = sequence.num_scored_tokens  # computed again without scores up to there, then with
        num_new_tokens = min(end - sequence.num_computed_tokens, budget)
        self._planned.append(sequence)
        rows.append(sequence.plan_row(num_new_tokens))
        return num_new_tokens

    def _admit_first(self) -> Sequence | None:
        """Give the first that waits its blocks and let it run, if there is room."""
        sequence = self._waiting.first
        if sequence is None or len(self._running) == self._max_num_sequences:
            return None
        cached = self._find_prefix(sequence)
        num_new_blocks = num_blocks_for(len(sequence.token_ids)) - len(cached)
        num_free_after = self._pool.num_free - num_new_blocks - sum(map(self._pool.is_free, cached))
        # One block is left for each running sequence to grow into: else the newest would soon be preempted again.
        if num_free_after < len(self._running):
            return None
        self._waiting.remove(sequence)
        self._pool.share(cached)
        sequence.block_ids = cached + [self._pool.allocate() for _ in range(num_new_blocks)]
        sequence.num_computed_tokens = len(cached) * BLOCK_SIZE
        sequence.status = SequenceStatus.RUNNING
        if not sequence.is_admitted_before:
            sequence.is_admitted_before = True
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self.num_prefix_queried_tokens += sequence.num_prompt_tokens
            self.num_prefix_hit_tokens += sequence.num_cached_tokens
        insort(self._running, sequence, key=_rank)
        return sequence

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """Cached blocks that hold the sequence's first tokens."""
        block_ids: list[int] = []
        if self._is_prefix_caching:
            for index in range(sequence.num_cacheable_tokens // BLOCK_SIZE):
                block_id = self._pool.find(sequence.digest(index))
                if block_id is None:
                    break
                block_ids.append(block_id)
        return block_ids

    def _is_worth_waiting_for(self, leader: Sequence, follower: Sequence) -> bool:
        """Whether the leader, not preempted so far, is still to compute blocks that the follower can share."""
        is_first_run = leader.status is SequenceStatus.RUNNING or not leader.is_admitted_before
        return self._is_prefix_caching and is_first_run and leader.num_computed_tokens < follower.num_cacheable_tokens

    def _advance(self, sequence: Sequence, row: PlanRow) -> None:
        """Count what the row computed, and cache the blocks that it filled."""
        begin = row.num_computed_tokens
        sequence.num_computed_tokens = end = begin + row.num_new_tokens
        if row.num_prompt_logprobs is not None:
            sequence.num_scored_tokens = end
        if self._is_prefix_caching and end // BLOCK_SIZE > begin // BLOCK_SIZE:
            for index in range(begin // BLOCK_SIZE, end // BLOCK_SIZE):
                self._pool.keep(sequence.block_ids[index], sequence.digest(index))
        if begin < sequence.num_prompt_tokens and end >= sequence.num_cacheable_tokens:
            self._waiting.release_followers(sequence.sequence_id)

    def _append(self, sequence: Sequence, token_id: int) -> None:
        """Append a token drawn; end the sequence if it does."""
        sequence.token_ids.append(token_id)
        if token_id in sequence.ending_token_ids:
            sequence.stop_token_id = token_id
            self.finish(sequence.sequence_id, FinishReason.STOP)
        elif len(sequence.token_ids) == sequence.max_num_tokens:
            self.finish(sequence.sequence_id, FinishReason.LENGTH)

    def _free(self, sequence: Sequence) -> None:
        self._pool.release(sequence.block_ids)
        sequence.block_ids = []  # a new list: a plan that was made already may still hold the old one


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank
