"""The sequences that wait, in line: by standing, then by their callers' fair shares, then by arrival."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.sequence import rank_of


class WaitingQueue:
    """Owner of who is next: who has the lowest rank.

    Finding a place in the line takes O(log n) comparisons; making room there moves pointers, which is quick for any
    queue that admission lets in. A follower stands aside, out of the others' way, until its leader has computed the
    prompt that they share.
    """

    def __init__(self) -> None:
        self._line: list[ScheduledSequence] = []
        """By rank."""
        self._followers: dict[int, dict[int, ScheduledSequence]] = {}
        """By leader, then by their own id."""
        self._num_followers = 0
        self.parties: Counter[tuple[bool, str]] = Counter()
        """How many each party has in line; never zero. Read only, for others."""
        self.num_batch = 0
        """How many of all that wait are batch work. Read only, for others."""

    def __len__(self) -> int:
        return len(self._line) + self._num_followers

    def __iter__(self) -> Iterator[ScheduledSequence]:
        yield from self._line
        for followers in self._followers.values():
            yield from followers.values()

    @property
    def first(self) -> ScheduledSequence | None:
        """The next to be admitted."""
        return self._line[0] if self._line else None

    @property
    def line(self) -> Sequence[ScheduledSequence]:
        """All but followers, by rank."""
        return self._line

    def add(self, sequence: ScheduledSequence) -> None:
        """Queue a new arrival, or an earlier one, in the place that its rank gives it."""
        self.num_batch += sequence.is_batch
        self._insert(sequence)

    def stand_aside(self, sequence: ScheduledSequence, leader_id: int) -> None:
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
        place = bisect_left(self._line, sequence.rank, key=rank_of)
        assert self._line[place] is sequence, "it does not wait"
        del self._line[place]
        self.parties[sequence.party] -= 1
        if not self.parties[sequence.party]:
            del self.parties[sequence.party]

    def _remove_follower(self, sequence: ScheduledSequence, leader_id: int) -> None:
        followers = self._followers[leader_id]
        del followers[sequence.sequence_id]
        self._num_followers -= 1
        if not followers:
            del self._followers[leader_id]

    def _insert(self, sequence: ScheduledSequence) -> None:
        insort(self._line, sequence, key=rank_of)
        self.parties[sequence.party] += 1
