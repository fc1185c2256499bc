"""The waiting and running sequences, and the KV cache blocks that the running ones hold."""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection
from operator import attrgetter

from distilgpt2_api.core.config import BLOCK_SIZE, EngineConfig
from distilgpt2_api.core.events import ScheduleStats
from distilgpt2_api.core.plan import StepPlan
from distilgpt2_api.scheduling.blocks import BlockPool, num_blocks_for
from distilgpt2_api.scheduling.fairness import FairShares, choose_victims, first_unserved
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus, rank_of
from distilgpt2_api.scheduling.waiting import WaitingQueue


class SequencePool:
    """Owns the waiting queue, the running sequences and the block pool. Only the scheduler uses it."""

    def __init__(self, config: EngineConfig, *, num_blocks: int, num_eager_blocks: int | None) -> None:
        self._config = config
        self.blocks = BlockPool(num_blocks, num_eager_blocks=num_eager_blocks)
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []
        """Sorted by rank."""
        self._drafting: list[Sequence] = []
        """Sequences with blocks reserved for drafts."""
        self._num_preempted = 0
        self._num_prefix_queried_tokens = 0
        self._num_prefix_hit_tokens = 0

    @property
    def num_waiting(self) -> int:
        """Waiting sequences, except batch work."""
        return len(self.waiting) - self.waiting.num_batch

    @property
    def num_running_batch(self) -> int:
        """Running sequences of batch work. They are the last ones of `running`."""
        return len(self.running) - bisect_left(self.running, True, key=attrgetter("is_batch"))

    def take_stats(self, plan: StepPlan) -> ScheduleStats:
        """See `Scheduler.take_stats`. Starts counting for the next step."""
        num_running_batch = self.num_running_batch
        num_draft_tokens = plan.num_draft_tokens
        stats = ScheduleStats(
            num_rows=len(plan.rows),
            num_tokens=sum(row.num_new_tokens for row in plan.rows) + num_draft_tokens,
            num_draft_tokens=num_draft_tokens,
            num_running=len(self.running) - num_running_batch,
            num_waiting=self.num_waiting,
            num_batch=self.waiting.num_batch + num_running_batch,
            num_preempted=self._num_preempted,
            num_prefix_queried_tokens=self._num_prefix_queried_tokens,
            num_prefix_hit_tokens=self._num_prefix_hit_tokens,
            kv_cache_usage=1.0 - self.blocks.num_free / self.blocks.num_blocks,
        )
        self._num_preempted = self._num_prefix_queried_tokens = self._num_prefix_hit_tokens = 0
        return stats

    def queue(self, sequence: Sequence, leader: Sequence | None) -> None:
        """Queue a new arrival. `leader`: an earlier sequence with the same prompt, which may compute it for both."""
        if leader is not None and self._is_worth_waiting_for(leader, sequence):
            self.waiting.defer(sequence, leader.sequence_id)
        else:
            sequence.leader_id = None
            self.waiting.add(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Remove a waiting or running sequence and free its blocks."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._free(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        self.waiting.release_followers(sequence.sequence_id)

    def note_computed(self, sequence: Sequence, begin: int, end: int) -> None:
        """Keys and values of tokens `begin` to `end` are computed: cache the blocks that this filled."""
        if self._config.is_prefix_caching and end // BLOCK_SIZE > begin // BLOCK_SIZE:
            for index in range(begin // BLOCK_SIZE, end // BLOCK_SIZE):
                self.blocks.keep(sequence.block_ids[index], sequence.digest(index))
        if begin < sequence.num_prompt_tokens and end >= sequence.num_cacheable_tokens:
            self.waiting.release_followers(sequence.sequence_id)

    def reserve_draft_blocks(self, sequence: Sequence, num_blocks: int) -> bool:
        """Extend a running sequence's block table to `num_blocks` blocks for one step.

        Returns False if that would leave less than one free block for each running sequence.
        """
        num_lacking = num_blocks - len(sequence.block_ids)
        if num_lacking > 0:
            if num_lacking + len(self.running) > self.blocks.num_free:
                return False
            sequence.block_ids = sequence.block_ids + [self.blocks.allocate() for _ in range(num_lacking)]
            self._drafting.append(sequence)
        return True

    def release_draft_blocks(self) -> None:
        """Release reserved blocks that hold none of their sequence's tokens."""
        for sequence in self._drafting:
            num_needed = num_blocks_for(len(sequence.token_ids))
            self.blocks.release(sequence.block_ids[num_needed:])
            sequence.block_ids = sequence.block_ids[:num_needed]
        self._drafting.clear()

    def preempt_until_block_free(self) -> None:
        """Preempt running sequences, the last in rank first, until a block is free. They must not have a row yet."""
        while not self.blocks.num_free:
            self._preempt(self.running[-1])

    def preempt_batch_for_waiting(self, shares: FairShares, *, max_tokens: int) -> None:
        """Admit waiting sequences with up to `max_tokens` tokens to compute, and preempt batch work for them."""
        while max_tokens > 0 and self.running and self.running[-1].is_batch:
            candidate = self.waiting.first
            if candidate is None or candidate.is_batch:
                break
            self._preempt_batch_until_fits(candidate)
            if not self._admit(candidate, shares):
                break
            max_tokens -= len(candidate.token_ids) - candidate.num_computed_tokens

    def _preempt_batch_until_fits(self, candidate: Sequence) -> None:
        """Preempt batch work until `candidate` fits or no batch work runs.

        The fit is checked after each preemption: blocks that victims share are free only after the last one.
        """
        while self.running and self.running[-1].is_batch and not self._has_room_for(candidate):
            self._preempt(self.running[-1])

    def admit_unserved_callers(self, shares: FairShares) -> None:
        """Admit one sequence of each caller that has none running, and preempt those of callers that have several."""
        while (candidate := first_unserved(self.waiting, self.running)) is not None:
            if not candidate.is_batch:
                self._preempt_batch_until_fits(candidate)
            num_lacking_slots = len(self.running) + 1 - self._config.max_num_sequences
            cached = self._find_prefix(candidate)
            num_lacking_blocks = self._num_lacking_blocks(candidate, cached)
            if num_lacking_slots > 0 or num_lacking_blocks > 0:
                victims = choose_victims(
                    candidate,
                    self.running,
                    num_lacking_slots=num_lacking_slots,
                    num_lacking_blocks=num_lacking_blocks,
                    count_own_blocks=self._count_freed_blocks(cached),
                )
                if not victims:
                    break
                for victim in victims:
                    self._preempt(victim)
            if not self._admit(candidate, shares):
                break

    def _count_freed_blocks(self, cached: list[int]) -> Callable[[Sequence], int]:
        """A function that counts the blocks that preempting a sequence frees for one whose first tokens are in
        `cached`.

        Blocks in `cached` do not count, because the other sequence needs them.
        """
        needed = frozenset(cached)
        return lambda victim: self.blocks.count_own(block_id for block_id in victim.block_ids if block_id not in needed)

    def _preempt(self, victim: Sequence) -> None:
        """Free a running sequence's blocks and queue it again. It must not have a row yet."""
        self.running.remove(victim)
        self._free(victim)
        victim.status = SequenceStatus.WAITING
        victim.num_computed_tokens = 0
        self.waiting.add(victim)
        self.waiting.release_followers(victim.sequence_id)
        self._num_preempted += 1

    def admit_first(self, shares: FairShares, *, is_batch: bool) -> Sequence | None:
        """Admit the first waiting sequence, if it is of this kind and fits."""
        sequence = self.waiting.first
        if sequence is None or sequence.is_batch is not is_batch or not self._admit(sequence, shares):
            return None
        return sequence

    def _has_room_for(self, sequence: Sequence) -> bool:
        has_slot = len(self.running) < self._config.max_num_sequences
        return has_slot and self._num_lacking_blocks(sequence, self._find_prefix(sequence)) <= 0

    def _num_lacking_blocks(self, sequence: Sequence, cached: list[int]) -> int:
        """Free blocks that are missing to admit the sequence, 0 or less if it fits. `cached` hold its first tokens.

        One block is reserved for each running sequence to grow: otherwise the newest would soon be preempted again.
        """
        num_new_blocks = num_blocks_for(len(sequence.token_ids)) - len(cached)
        num_taken = num_new_blocks + sum(map(self.blocks.is_free, cached))
        return num_taken + len(self.running) - self.blocks.num_free

    def _admit(self, sequence: Sequence, shares: FairShares) -> bool:
        """Give a waiting sequence its blocks and run it. Returns False if it does not fit."""
        cached = self._find_prefix(sequence)
        if len(self.running) == self._config.max_num_sequences or self._num_lacking_blocks(sequence, cached) > 0:
            return False
        self.waiting.remove(sequence)
        shares.note_admitted(sequence)
        self.blocks.share(cached)
        num_new_blocks = num_blocks_for(len(sequence.token_ids)) - len(cached)
        sequence.block_ids = cached + [self.blocks.allocate() for _ in range(num_new_blocks)]
        sequence.num_computed_tokens = len(cached) * BLOCK_SIZE
        sequence.status = SequenceStatus.RUNNING
        if not sequence.is_admitted_before:
            sequence.is_admitted_before = True
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self._num_prefix_queried_tokens += sequence.num_prompt_tokens
            self._num_prefix_hit_tokens += sequence.num_cached_tokens
        insort(self.running, sequence, key=rank_of)
        return True

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """The cached blocks that hold the sequence's first tokens."""
        block_ids: list[int] = []
        if self._config.is_prefix_caching:
            for index in range(sequence.num_cacheable_tokens // BLOCK_SIZE):
                block_id = self.blocks.find(sequence.digest(index))
                if block_id is None:
                    break
                block_ids.append(block_id)
        return block_ids

    def _is_worth_waiting_for(self, leader: Sequence, follower: Sequence) -> bool:
        """Whether the leader, never preempted, has yet to compute blocks that the follower can share."""
        if not self._config.is_prefix_caching:
            return False
        is_first_run = leader.status is SequenceStatus.RUNNING or not leader.is_admitted_before
        return is_first_run and leader.num_computed_tokens < follower.num_cacheable_tokens

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.block_ids)
        sequence.block_ids = []  # a new list: a plan made before may hold the old one

    def check(self, sequences: Collection[Sequence]) -> None:
        """Raise AssertionError unless the states of blocks and sequences agree. Slow: for tests."""
        self.blocks.check([sequence.block_ids for sequence in sequences])
        waiting = list(self.waiting)
        is_sound = {
            "every sequence waits or runs": {*waiting, *self.running} == {*sequences},
            "no sequence twice": len(self.waiting) + len(self.running) == len(sequences),
            "status": all(s.status is SequenceStatus.WAITING for s in waiting)
            and all(s.status is SequenceStatus.RUNNING for s in self.running),
            "waiting sequences hold no blocks": not any(s.block_ids or s.num_computed_tokens for s in waiting),
            "block tables cover": all(s.num_computed_tokens <= len(s.block_ids) * BLOCK_SIZE for s in self.running),
            "order": self.running == sorted(self.running, key=rank_of),
            "batch work waiting": self.waiting.num_batch == sum(s.is_batch for s in waiting),
        }
        if not all(is_sound.values()):
            raise AssertionError(f"sequence accounting is wrong: {[name for name, ok in is_sound.items() if not ok]}")
