"""The waiting sequences, ordered by priority class, then by their callers' fair shares, then by arrival."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import merge

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence import rank_of

CallerKey = tuple[bool, str]
"""See `Sequence.caller_key`."""


class WaitingQueue:
    """Owns the order of the waiting sequences; the one with the lowest rank is next.

    Each `CallerKey` has a sorted queue of its own, and the heads of all queues form another one. An insertion takes
    O(log n) comparisons and moves O(n) pointers, which is fast for any queue that admission allows. A follower is kept
    apart until its leader has computed the prompt that they share.
    """

    def __init__(self) -> None:
        self._queues: dict[CallerKey, list[ScheduledSequence]] = {}
        """Sorted by rank; none is empty."""
        self._heads: list[ScheduledSequence] = []
        """The first sequence of each queue, sorted by rank."""
        self._num_queued = 0
        self._followers: dict[int, dict[int, ScheduledSequence]] = {}
        """Maps a leader's id to its followers by id."""
        self._num_followers = 0
        self.num_batch = 0
        """Waiting sequences of batch work. Read only outside this class."""

    def __len__(self) -> int:
        return self._num_queued + self._num_followers

    def __iter__(self) -> Iterator[ScheduledSequence]:
        """In order of rank, followers last. Slow: for tests."""
        yield from merge(*self._queues.values(), key=rank_of)
        for followers in self._followers.values():
            yield from followers.values()

    @property
    def first(self) -> ScheduledSequence | None:
        """The sequence to admit next."""
        return self._heads[0] if self._heads else None

    @property
    def heads(self) -> Sequence[ScheduledSequence]:
        """The first sequence of each `CallerKey`, without followers, in order of rank."""
        return self._heads

    def add(self, sequence: ScheduledSequence) -> None:
        """Queue a new or preempted sequence by its rank."""
        self.num_batch += sequence.is_batch
        self._insert(sequence)

    def defer(self, sequence: ScheduledSequence, leader_id: int) -> None:
        """Keep a new arrival apart until `release_followers(leader_id)`."""
        self._followers.setdefault(leader_id, {})[sequence.sequence_id] = sequence
        self._num_followers += 1
        self.num_batch += sequence.is_batch

    def release_followers(self, leader_id: int) -> None:
        """Queue the followers of this leader, if there are any."""
        followers = self._followers.pop(leader_id, {})
        self._num_followers -= len(followers)
        for follower in followers.values():
            follower.leader_id = None
            self._insert(follower)

    def remove(self, sequence: ScheduledSequence) -> None:
        self.num_batch -= sequence.is_batch
        if sequence.leader_id is not None:
            followers = self._followers[sequence.leader_id]
            del followers[sequence.sequence_id]
            self._num_followers -= 1
            if not followers:
                del self._followers[sequence.leader_id]
            return
        queue = self._queues[sequence.caller_key]
        index = find_index(queue, sequence)
        del queue[index]
        self._num_queued -= 1
        if not index:
            del self._heads[find_index(self._heads, sequence)]
            if queue:
                insort(self._heads, queue[0], key=rank_of)
            else:
                del self._queues[sequence.caller_key]

    def _insert(self, sequence: ScheduledSequence) -> None:
        queue = self._queues.setdefault(sequence.caller_key, [])
        insort(queue, sequence, key=rank_of)
        self._num_queued += 1
        if queue[0] is sequence:
            if len(queue) > 1:
                del self._heads[find_index(self._heads, queue[1])]
            insort(self._heads, sequence, key=rank_of)


def find_index(queue: Sequence[ScheduledSequence], sequence: ScheduledSequence) -> int:
    """The sequence's index in a sorted queue; it must be there."""
    index = bisect_left(queue, sequence.rank, key=rank_of)
    assert queue[index] is sequence, "the sequence is not waiting"
    return index
