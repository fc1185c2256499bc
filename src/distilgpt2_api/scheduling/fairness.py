"""Fair shares: one caller's thousand requests don't keep another's first from its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.waiting import WaitingQueue

PriorityClass = tuple[bool, int]
"""See `Sequence.priority_class`."""
MAX_CALLERS = 1024
"""Callers whose virtual ends are remembered, of all standings together; up to twice as many between two sweeps."""


@dataclass(slots=True)
class VirtualTime:
    """Mutable: the virtual time of one standing, kept while it has sequences in flight."""

    now: float = 0.0
    """The latest start of those that were admitted, or the latest end that was forgotten."""
    ends: dict[str, float] = field(default_factory=dict)
    """By caller: the virtual end of its last sequence."""
    num_sequences: int = 0
    """Waiting and running."""

    def forget(self, max_callers: int) -> None:
        """Forget the callers that have nothing to wait for, and the earliest of the others beyond `max_callers`.

        A caller that is forgotten starts now. So that it gains nothing by that, now becomes its end.
        """
        self.ends = {caller: end for caller, end in self.ends.items() if end > self.now}
        num_surplus = len(self.ends) - max_callers
        if num_surplus > 0:
            self.now = sorted(self.ends.values())[num_surplus - 1]
            self.ends = {caller: end for caller, end in self.ends.items() if end > self.now}


class FairShares:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996), in tokens, for each standing by itself.

    A caller's next sequence starts, in virtual time, where its last one would have ended; a caller that had nothing to
    do starts now. The earliest start goes first. With one caller that is first come, first served.

    Memory is bounded by `MAX_CALLERS` and the sequences in flight, whatever callers and priorities come, and each
    arrival does O(1) work, amortised: a sweep comes only after as many new entries as it leaves.
    """

    def __init__(self) -> None:
        self._times: dict[PriorityClass, VirtualTime] = {}
        self._num_entries = 0
        """Of all ends together."""
        self._sweep_size = 2 * MAX_CALLERS

    def __len__(self) -> int:
        """Callers that are remembered, each as often as it has standings."""
        return self._num_entries

    def start_of(
        self, priority_class: PriorityClass, caller: str, num_tokens: int, *, is_continuation: bool = False
    ) -> float:
        """The virtual start of a new arrival, which then counts `num_tokens` against its caller.

        What continues work that runs starts now, as that work does: before its caller's others, behind all who are due.
        """
        time = self._times.setdefault(priority_class, VirtualTime())
        time.num_sequences += 1
        now = time.now
        end = time.ends.get(caller)
        self._num_entries += end is None
        start = now if end is None else max(now, end)
        time.ends[caller] = start + num_tokens
        if self._num_entries >= self._sweep_size:
            self._sweep()
        return now if is_continuation else start

    def note_admitted(self, sequence: ScheduledSequence) -> None:
        """Virtual time is now at its start, if it was not past it before."""
        time = self._times[sequence.priority_class]
        time.now = max(time.now, sequence.virtual_start)

    def note_finished(self, sequence: ScheduledSequence) -> None:
        """It is no longer in flight. After the last one of its priority all callers of that priority are level."""
        time = self._times[sequence.priority_class]
        time.num_sequences -= 1
        if not time.num_sequences:
            self._num_entries -= len(self._times.pop(sequence.priority_class).ends)

    def _sweep(self) -> None:
        max_callers = max(1, MAX_CALLERS // len(self._times))
        for time in self._times.values():
            time.forget(max_callers)
        self._num_entries = sum(len(time.ends) for time in self._times.values())
        self._sweep_size = 2 * max(MAX_CALLERS, self._num_entries)


def first_unserved(waiting: WaitingQueue, running: Sequence[ScheduledSequence]) -> ScheduledSequence | None:
    """The first in line of a caller of whom nothing runs, while others do; None where there is none.

    `running` is in the order of rank. For batch work that is so only among its own kind, and only while nothing else
    runs.
    """
    if not running:
        return None
    served = {sequence.caller_key for sequence in running}
    candidate = next((sequence for sequence in waiting.firsts if sequence.caller_key not in served), None)
    return None if candidate is None or (candidate.is_batch and not running[0].is_batch) else candidate


def choose_victims(
    candidate: ScheduledSequence,
    running: Sequence[ScheduledSequence],
    *,
    num_lacking_slots: int,
    num_lacking_blocks: int,
    count_own_blocks: Callable[[ScheduledSequence], int],
) -> list[ScheduledSequence]:
    """Who must give way so that `candidate` fits: the last in rank of whoever has most, again and again.

    Empty where that is never enough. Nobody loses the only one that it has running, and none of a lower standing goes.
    `running` is in the order of rank.
    """
    remaining = Counter(sequence.caller_key for sequence in running)
    candidates: dict[tuple[bool, str], list[ScheduledSequence]] = {}
    for sequence in running:
        candidates.setdefault(sequence.caller_key, []).append(sequence)
    victims: list[ScheduledSequence] = []
    while num_lacking_slots > 0 or num_lacking_blocks > 0:
        caller_key, most = remaining.most_common(1)[0]
        if most < 2:
            return []
        victim = candidates[caller_key].pop()
        if victim.priority_class < candidate.priority_class:
            del remaining[caller_key]
            if not remaining:
                return []
            continue
        remaining[caller_key] -= 1
        victims.append(victim)
        num_lacking_slots -= 1
        num_lacking_blocks -= count_own_blocks(victim) + 1  # and the one that was left for it to grow into
    return victims
