"""The sequences that wait, in line: by standing, then by their callers' fair shares, then by arrival."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import merge

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence import rank_of

CallerKey = tuple[bool, str]
"""See `Sequence.caller_key`."""


class WaitingQueue:
    """Owner of who is next: who has the lowest rank.

    Each caller_key has a line of its own, and the first of all lines are in one more. Finding a place in a line takes
    O(log n) comparisons; making room there moves pointers, which is quick for any queue that admission lets in. A
    follower stands aside, out of the others' way, until its leader has computed the
    prompt that they share.
    """

    def __init__(self) -> None:
        self._lines: dict[CallerKey, list[ScheduledSequence]] = {}
        """By caller_key, then by rank; none is empty."""
        self._firsts: list[ScheduledSequence] = []
        """The first of each line, by rank."""
        self._num_in_line = 0
        self._followers: dict[int, dict[int, ScheduledSequence]] = {}
        """By leader, then by their own id."""
        self._num_followers = 0
        self.num_batch = 0
        """How many of all that wait are batch work. Read only, for others."""

    def __len__(self) -> int:
        return self._num_in_line + self._num_followers

    def __iter__(self) -> Iterator[ScheduledSequence]:
        """By rank, followers last. Slow: for tests."""
        yield from merge(*self._lines.values(), key=rank_of)
        for followers in self._followers.values():
            yield from followers.values()

    @property
    def first(self) -> ScheduledSequence | None:
        """The next to be admitted."""
        return self._firsts[0] if self._firsts else None

    @property
    def firsts(self) -> Sequence[ScheduledSequence]:
        """The first of each caller_key, followers left out, by rank."""
        return self._firsts

    def add(self, sequence: ScheduledSequence) -> None:
        """Queue a new arrival, or an earlier one, in the place that its rank gives it."""
        self.num_batch += sequence.is_batch
        self._insert(sequence)

    def defer(self, sequence: ScheduledSequence, leader_id: int) -> None:
        """Make a new arrival wait for `release_followers(leader_id)`."""
        self._followers.setdefault(leader_id, {})[sequence.sequence_id] = sequence
        self._num_followers += 1
        self.num_batch += sequence.is_batch

    def release_followers(self, leader_id: int) -> None:
        """Queue those who waited for this leader, in their places. Without followers, nothing happens."""
        followers = self._followers.pop(leader_id, {})
        self._num_followers -= len(followers)
        for follower in followers.values():
            follower.leader_id = None
            self._insert(follower)

    def remove(self, sequence: ScheduledSequence) -> None:
        """Take out a sequence that waits."""
        self.num_batch -= sequence.is_batch
        if sequence.leader_id is not None:
            self._remove_follower(sequence, sequence.leader_id)
            return
        line = self._lines[sequence.caller_key]
        place = find_place(line, sequence)
        del line[place]
        self._num_in_line -= 1
        if not place:
            del self._firsts[find_place(self._firsts, sequence)]
            if line:
                insort(self._firsts, line[0], key=rank_of)
            else:
                del self._lines[sequence.caller_key]

    def _remove_follower(self, sequence: ScheduledSequence, leader_id: int) -> None:
        followers = self._followers[leader_id]
        del followers[sequence.sequence_id]
        self._num_followers -= 1
        if not followers:
            del self._followers[leader_id]

    def _insert(self, sequence: ScheduledSequence) -> None:
        line = self._lines.setdefault(sequence.caller_key, [])
        insort(line, sequence, key=rank_of)
        self._num_in_line += 1
        if line[0] is sequence:
            if len(line) > 1:
                del self._firsts[find_place(self._firsts, line[1])]
            insort(self._firsts, sequence, key=rank_of)


def find_place(line: Sequence[ScheduledSequence], sequence: ScheduledSequence) -> int:
    """Its index in a line by rank; it must be there."""
    place = bisect_left(line, sequence.rank, key=rank_of)
    assert line[place] is sequence, "it does not wait"
    return place
