"""The sequences that wait, in line: by priority, then by arrival."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

from distilgpt2_api.scheduling.sequence import Sequence


class WaitingQueue:
    """Owner of who is next: who has the lowest priority, and of those the earliest arrival.

    Taking the first, adding at either end of a priority and removing from anywhere are O(1), but for a look at the
    priorities in use, of which there are few. A follower stands aside, out of the others' way, until its leader has
    computed the prompt that they share.
    """

    def __init__(self) -> None:
        self._lines: dict[int, OrderedDict[int, Sequence]] = {}
        """By priority, then by id, in the order of arrival; none is empty."""
        self._priorities: list[int] = []
        """Of the lines, ascending."""
        self._num_in_line = 0
        self._followers: dict[int, dict[int, Sequence]] = {}
        """By leader, then by their own id."""
        self._num_followers = 0
        self.num_tokens = 0
        """Tokens to compute of all that wait: prompts, and completions that a preemption threw back."""

    def __len__(self) -> int:
        return self._num_in_line + self._num_followers

    def __iter__(self) -> Iterator[Sequence]:
        for priority in self._priorities:
            yield from self._lines[priority].values()
        for followers in self._followers.values():
            yield from followers.values()

    @property
    def first(self) -> Sequence | None:
        """The next to be admitted."""
        return next(iter(self._lines[self._priorities[0]].values())) if self._priorities else None

    def append(self, sequence: Sequence) -> None:
        """Queue a new arrival, behind all of its priority."""
        self._open_line(sequence.priority)[sequence.sequence_id] = sequence
        self._num_in_line += 1
        self.num_tokens += len(sequence.token_ids)

    def put_back(self, sequence: Sequence) -> None:
        """Queue an earlier arrival in its place, in front of its equals that came later: nearly always of all."""
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
        line = self._lines.get(sequence.priority)
        if line is None or line.pop(sequence.sequence_id, None) is None:
            self._remove_follower(sequence)
            return
        self._num_in_line -= 1
        if not line:
            del self._lines[sequence.priority]
            self._priorities.remove(sequence.priority)

    def _remove_follower(self, sequence: Sequence) -> None:
        assert sequence.leader_id is not None, "it does not wait"
        followers = self._followers[sequence.leader_id]
        del followers[sequence.sequence_id]
        self._num_followers -= 1
        if not followers:
            del self._followers[sequence.leader_id]

    def _insert(self, sequence: Sequence) -> None:
        line = self._open_line(sequence.priority)
        elders = []
        for waiting in line.values():
            if waiting.arrival > sequence.arrival:
                break
            elders.append(waiting.sequence_id)
        line[sequence.sequence_id] = sequence
        line.move_to_end(sequence.sequence_id, last=False)
        for sequence_id in reversed(elders):
            line.move_to_end(sequence_id, last=False)
        self._num_in_line += 1

    def _open_line(self, priority: int) -> OrderedDict[int, Sequence]:
        """The line of a priority, for somebody who comes to stand in it."""
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = OrderedDict()
            insort(self._priorities, priority)
        return line
