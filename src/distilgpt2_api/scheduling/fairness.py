"""Fair shares: one caller's thousand requests don't keep another's first from its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distilgpt2_api.scheduling.sequence import Sequence as ScheduledSequence
from distilgpt2_api.scheduling.waiting import WaitingQueue

Standing = tuple[bool, int]
"""See `Sequence.standing`."""
MAX_IDLE_LINES = 1024
"""Callers that are remembered though they have had all that was theirs; beyond it they are forgotten."""


class FairShares:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996), in tokens, for each standing by itself.

    A caller's next sequence starts, in virtual time, where its last one would have ended; one who had nothing to do
    starts now. Whoever has the earliest start goes first. With one caller that is first come, first served.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[Standing, str], float] = {}
        """By standing and caller: the virtual end of its last sequence."""
        self._now: dict[Standing, float] = {}
        """By standing: the latest start of those that were let in."""

    def start_of(self, standing: Standing, caller: str, num_tokens: int, *, is_continuation: bool = False) -> float:
        """The virtual start of a new arrival, which then counts `num_tokens` against its caller.

        What continues work that runs starts now, as that work does: before its caller's others, behind all who are due.
        """
        line = standing, caller
        now = self._now.get(standing, 0.0)
        end = max(now, self._ends.get(line, 0.0))
        self._ends[line] = end + num_tokens
        if len(self._ends) > MAX_IDLE_LINES:
            self._forget_idle()
        return now if is_continuation else end

    def note_admitted(self, sequence: ScheduledSequence) -> None:
        """Virtual time is now at its start, if it was not past it before."""
        self._now[sequence.standing] = max(self._now.get(sequence.standing, 0.0), sequence.virtual_start)

    def forget_all(self) -> None:
        """Nothing waits or runs: nobody is ahead of anybody."""
        self._ends.clear()
        self._now.clear()

    def _forget_idle(self) -> None:
        self._ends = {
            (standing, caller): end
            for (standing, caller), end in self._ends.items()
            if end > self._now.get(standing, 0.0)
        }


def find_shut_out(waiting: WaitingQueue, running: Sequence[ScheduledSequence]) -> ScheduledSequence | None:
    """The first in line of a caller of whom nothing runs, while others do; None where there is none.

    `running` is in the order of rank. For batch work that is so only among its own kind, and only while nothing else
    runs.
    """
    if not waiting or not running:
        return None
    served = {sequence.party for sequence in running}
    if served.issuperset(waiting.parties):
        return None
    guest = next((sequence for sequence in waiting.line if sequence.party not in served), None)
    return None if guest is None or (guest.is_batch and not running[0].is_batch) else guest


def choose_victims(
    guest: ScheduledSequence,
    running: Sequence[ScheduledSequence],
    *,
    num_lacking_places: int,
    num_lacking_blocks: int,
    count_own_blocks: Callable[[ScheduledSequence], int],
) -> list[ScheduledSequence]:
    """Who must give way so that `guest` fits: the last in rank of whoever has most, again and again.

    Empty where that is never enough. Nobody loses the only one that it has running, and none of a lower standing goes.
    `running` is in the order of rank.
    """
    remaining = Counter(sequence.party for sequence in running)
    candidates: dict[tuple[bool, str], list[ScheduledSequence]] = {}
    for sequence in running:
        candidates.setdefault(sequence.party, []).append(sequence)
    victims: list[ScheduledSequence] = []
    while num_lacking_places > 0 or num_lacking_blocks > 0:
        party, most = remaining.most_common(1)[0]
        if most < 2:
            return []
        victim = candidates[party].pop()
        if victim.standing < guest.standing:
            del remaining[party]
            if not remaining:
                return []
            continue
        remaining[party] -= 1
        victims.append(victim)
        num_lacking_places -= 1
        num_lacking_blocks -= count_own_blocks(victim) + 1  # and the one that was left for it to grow into
    return victims
