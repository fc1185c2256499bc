"""Fair shares: one caller's thousand requests don't delay another caller's first."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.waiting import WaitingQueue

PriorityClass = tuple[bool, int]
"""See `Sequence.priority_class`."""
MAX_CALLERS = 1024
"""Entries of callers that a sweep keeps, over all priority classes; there are up to twice as many between sweeps."""


@dataclass(slots=True)
class VirtualTime:
    """Mutable: the virtual time of one priority class, kept while the class has sequences in flight."""

    now: float = 0.0
    """The latest start of the sequences admitted, or the latest end that was forgotten."""
    ends: dict[str, float] = field(default_factory=dict)
    """Maps a caller to the virtual end of its last sequence."""
    num_sequences: int = 0
    """Waiting and running."""

    def forget(self, max_callers: int) -> None:
        """Forget callers whose end has passed and, beyond `max_callers`, those with the earliest ends.

        The next sequence of a forgotten caller starts at `now`. `now` advances to the ends that are forgotten, so that
        no caller gains by it.
        """
        self.ends = {caller: end for caller, end in self.ends.items() if end > self.now}
        num_surplus = len(self.ends) - max_callers
        if num_surplus > 0:
            self.now = sorted(self.ends.values())[num_surplus - 1]
            self.ends = {caller: end for caller, end in self.ends.items() if end > self.now}


class FairShares:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996), in tokens, separately for each priority class.

    In virtual time, a caller's next sequence starts at the end of its last one, or now if that has passed. The earliest
    start goes first. With one caller, this is first come, first served.

    Memory is bounded by `MAX_CALLERS` and the number of sequences in flight, for any number of callers and priorities.
    An arrival takes O(1) amortised time: a sweep runs only after as many new entries as the last one kept.
    """

    def __init__(self) -> None:
        self._times: dict[PriorityClass, VirtualTime] = {}
        self._num_entries = 0
        """Number of entries in all `ends`."""
        self._sweep_size = 2 * MAX_CALLERS

    def __len__(self) -> int:
        """Number of entries: one for each caller in each priority class."""
        return self._num_entries

    def start_of(
        self, priority_class: PriorityClass, caller: str, num_tokens: int, *, is_continuation: bool = False
    ) -> float:
        """The virtual start of a new arrival; charges `num_tokens` to its caller.

        A continuation of running work starts now, like that work: before its caller's other sequences, but behind the
        callers that are due.
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
        """Advance the virtual time to the start of the admitted sequence."""
        time = self._times[sequence.priority_class]
        time.now = max(time.now, sequence.virtual_start)

    def note_finished(self, sequence: ScheduledSequence) -> None:
        """Count the sequence out. After the last one of a priority class, all callers of the class are equal again."""
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
    """The first waiting sequence of a caller that has no running sequence, while other callers have. None without one.

    `running` is in order of rank. Batch work is returned only while nothing but batch work runs.
    """
    if not running:
        return None
    served = {sequence.caller_key for sequence in running}
    candidate = next((sequence for sequence in waiting.heads if sequence.caller_key not in served), None)
    return None if candidate is None or (candidate.is_batch and not running[0].is_batch) else candidate


def choose_victims(
    candidate: ScheduledSequence,
    running: Sequence[ScheduledSequence],
    *,
    num_lacking_slots: int,
    num_lacking_blocks: int,
    count_own_blocks: Callable[[ScheduledSequence], int],
) -> list[ScheduledSequence]:
    """The sequences to preempt so that `candidate` fits: repeatedly the last in rank of the caller that has most.

    Empty if that is never enough. No caller loses its only running sequence, and no sequence of a more urgent priority
    class is preempted. `running` is in order of rank.
    """
    remaining = Counter(sequence.caller_key for sequence in running)
    by_caller: dict[tuple[bool, str], list[ScheduledSequence]] = {}
    for sequence in running:
        by_caller.setdefault(sequence.caller_key, []).append(sequence)
    victims: list[ScheduledSequence] = []
    while num_lacking_slots > 0 or num_lacking_blocks > 0:
        caller_key, most = remaining.most_common(1)[0]
        if most < 2:
            return []
        victim = by_caller[caller_key].pop()
        if victim.priority_class < candidate.priority_class:
            del remaining[caller_key]
            if not remaining:
                return []
            continue
        remaining[caller_key] -= 1
        victims.append(victim)
        num_lacking_slots -= 1
        num_lacking_blocks -= count_own_blocks(victim) + 1  # and the block reserved for its growth
    return victims
