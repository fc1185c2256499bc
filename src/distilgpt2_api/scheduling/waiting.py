"""The sequences that wait, in the order of their arrival."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from distilgpt2_api.scheduling.sequence import Sequence


class WaitingQueue:
    """Owner of who is next. Taking the first, adding at either end and removing from anywhere are O(1).

    A follower stands aside, out of the others' way, until its leader has computed the prompt that they share.
    """

    def __init__(self) -> None:
        self._queue: OrderedDict[int, Sequence] = OrderedDict()
        self._followers: dict[int, dict[int, Sequence]] = {}
        """By leader, then by their own id."""
        self._num_followers = 0
        self.num_tokens = 0
        """Tokens to compute of all that wait: prompts, and completions that a preemption threw back."""

    def __len__(self) -> int:
        return len(self._queue) + self._num_followers

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._queue.values()
        for followers in self._followers.values():
            yield from followers.values()

    @property
    def first(self) -> Sequence | None:
        """The next to be admitted."""
        return next(iter(self._queue.values()), None)

    def append(self, sequence: Sequence) -> None:
        """Queue a new arrival."""
        self._queue[sequence.sequence_id] = sequence
        self.num_tokens += len(sequence.token_ids)

    def put_back(self, sequence: Sequence) -> None:
        """Queue an earlier arrival in its place, in front of all that came after it: nearly always the very front."""
        self.num_tokens += len(sequence.token_ids)
        self._insert(sequence)

    def stand_aside(self, sequence: Sequence, leader_id: int) -> None:
        """Make a new arrival wait for `release_followers(leader_id)`."""
        self._followers.setdefault(leader_id, {})[sequence.sequence_id] = sequence
        self._num_followers += 1
        self.num_tokens += len(sequence.token_ids)

    def release_followers(self, leader_id: int) -> None:
        """Queue those who waited for this leader, in their places. Without followers, nothing happens."""
        followers = self._followers.pop(leader_id, {})
        self._num_followers -= len(followers)
        for follower in reversed(followers.values()):  # the last first, so that each finds its place at the front
            follower.leader_id = None
            self._insert(follower)

    def remove(self, sequence: Sequence) -> None:
        self.num_tokens -= len(sequence.token_ids)
        if self._queue.pop(sequence.sequence_id, None) is None:
            self._remove_follower(sequence)

    def _remove_follower(self, sequence: Sequence) -> None:
        assert sequence.leader_id is not None, "it does not wait"
        followers = self._followers[sequence.leader_id]
        del followers[sequence.sequence_id]
        self._num_followers -= 1
        if not followers:
            del self._followers[sequence.leader_id]

    def _insert(self, sequence: Sequence) -> None:
        elders = []
        for waiting in self._queue.values():
            if waiting.arrival > sequence.arrival:
                break
            elders.append(waiting.sequence_id)
        self._queue[sequence.sequence_id] = sequence
        self._queue.move_to_end(sequence.sequence_id, last=False)
        for sequence_id in reversed(elders):
            self._queue.move_to_end(sequence_id, last=False)
