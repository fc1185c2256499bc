"""Fair shares between a caller with many requests and one with few."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.scheduling.fairness import MAX_CALLERS, FairShares, VirtualTime
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus

PLAIN = (False, 0)
"""The priority class of ordinary requests."""


def finish_order(world: Any) -> list[str]:
    """The callers of the sequences, in the order in which they end."""
    order: list[str] = []
    while world.scheduler.has_work:
        order.extend(update.sequence.caller for update in world.step() if update.sequence.finish_reason is not None)
    return order


def test_a_first_request_goes_before_another_callers_thousand(build_world: Callable[..., Any]) -> None:
    """It waits for what runs and what is due, but not for all requests that arrived before it."""
    world = build_world(max_num_sequences=1)
    for _ in range(1000):
        world.add(range(1, 9), caller="greedy", max_tokens=4, ignore_eos=True)
    world.step()
    modest = world.add(range(1, 9), caller="modest", max_tokens=4, ignore_eos=True)
    num_ended = 0
    while modest.finish_reason is None:
        num_ended += sum(update.sequence.finish_reason is not None for update in world.step())
    assert num_ended <= 3


def test_callers_share_by_tokens(build_world: Callable[..., Any]) -> None:
    """A caller with requests twice as large gets half as many served."""
    world = build_world(max_num_sequences=1)
    for _ in range(8):
        world.add(range(1, 9), caller="long", max_tokens=24, ignore_eos=True)
        world.add(range(1, 9), caller="short", max_tokens=8, ignore_eos=True)
    order = finish_order(world)[:9]
    assert (order.count("long"), order.count("short")) == (3, 6)


def test_one_caller_is_served_in_the_order_of_arrival(build_world: Callable[..., Any]) -> None:
    world = build_world(max_num_sequences=1)
    sequences = [world.add(range(1, 5), max_tokens=1 + index % 5, ignore_eos=True) for index in range(12)]
    ended: list[Sequence] = []
    while world.scheduler.has_work:
        ended.extend(update.sequence for update in world.step() if update.sequence.finish_reason is not None)
    assert ended == sequences


@pytest.mark.parametrize("limits", [{"max_num_sequences": 4}, {"num_blocks": 12}])
def test_a_caller_with_none_running_gets_a_slot_of_the_caller_with_most(
    build_world: Callable[..., Any], assert_undisturbed: Callable[[Sequence], None], limits: dict[str, int]
) -> None:
    """In the next step, although all slots or all blocks are taken. A preempted sequence loses no token."""
    world = build_world(**limits)
    for seed in range(6):
        world.add(range(1, 60), seed=seed, caller="greedy", max_tokens=150, ignore_eos=True)
    world.add(range(1, 20), caller="other", max_tokens=150, ignore_eos=True)
    for _ in range(8):
        world.step()
    modest = world.add(range(5, 70), caller="modest", max_tokens=3, ignore_eos=True)
    world.step()
    assert modest.status is SequenceStatus.RUNNING
    assert world.num_preempted > 0
    world.run()
    for sequence in world.sequences.values():
        assert_undisturbed(sequence)


def test_no_caller_loses_its_only_running_sequence(build_world: Callable[..., Any]) -> None:
    world = build_world(max_num_sequences=2)
    firsts = [world.add(range(1, 9), caller=name, max_tokens=20, ignore_eos=True) for name in ("a", "b")]
    world.step()
    third = world.add(range(1, 9), caller="c", max_tokens=2, ignore_eos=True)
    for _ in range(10):
        world.step()
    assert world.is_waiting(third)
    assert not any(map(world.is_waiting, firsts))
    world.run()


def test_no_lower_priority_is_preempted_for_a_new_caller(build_world: Callable[..., Any]) -> None:
    world = build_world(max_num_sequences=2)
    for _ in range(2):
        world.add(range(1, 9), caller="urgent", priority=-1, max_tokens=20, ignore_eos=True)
    world.step()
    newcomer = world.add(range(1, 9), caller="batch", max_tokens=2, ignore_eos=True)
    for _ in range(10):
        world.step()
    assert world.is_waiting(newcomer)
    assert world.num_preempted == 0
    world.run()


def test_a_callers_low_priority_work_does_not_count_against_its_urgent_work() -> None:
    shares = FairShares()
    shares.start_of((False, 9), "a", 1_000_000)
    shares.start_of(PLAIN, "b", 10)
    assert shares.start_of(PLAIN, "a", 1) == 0.0


class Load:
    """Sequences that arrive, are admitted and finish, and the virtual ends that no caller may fall behind."""

    def __init__(self) -> None:
        self.shares = FairShares()
        self.in_flight: deque[Sequence] = deque()
        self.num_in_flight: Counter[tuple[bool, int]] = Counter()
        self.ends: dict[tuple[tuple[bool, int], str], float] = {}
        self.most_in_flight = 0

    def arrive(self, caller: str, *, priority: int = 0, num_tokens: int = 10) -> Sequence:
        sequence = Sequence(
            sequence_id=0,
            prompt_token_ids=(1,),
            params=SamplingParams(),
            seed=0,
            num_positions=16,
            eos_token_ids=(),
            priority=priority,
            caller=caller,
        )
        sequence.virtual_start = self.shares.start_of(sequence.priority_class, caller, num_tokens)
        end = self.ends.get((sequence.priority_class, caller), 0.0)
        assert sequence.virtual_start >= end, "a caller has gained by being forgotten"
        self.ends[sequence.priority_class, caller] = sequence.virtual_start + num_tokens
        self.num_in_flight[sequence.priority_class] += 1
        self.in_flight.append(sequence)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        return sequence

    def serve(self) -> None:
        sequence = self.in_flight.popleft()
        self.shares.note_admitted(sequence)
        self.shares.note_finished(sequence)
        self.num_in_flight[sequence.priority_class] -= 1
        if not self.num_in_flight[sequence.priority_class]:
            self.ends = {line: end for line, end in self.ends.items() if line[0] != sequence.priority_class}


@pytest.mark.reported("3000 callers with one request each left 3000 entries and a rebuilt table for each arrival")
@settings(max_examples=1, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_priorities=st.sampled_from([1, 7, 5000]), num_waiting=st.sampled_from([1, 64, 2000]), seed=st.integers(0, 99)
)
@example(num_priorities=1, num_waiting=64, seed=0)
@example(num_priorities=5000, num_waiting=64, seed=0)
def test_thirty_thousand_callers_cost_bounded_memory_and_little_work(
    monkeypatch: pytest.MonkeyPatch, num_priorities: int, num_waiting: int, seed: int
) -> None:
    """With any priorities, while the service is never idle. No caller gains by being forgotten."""
    num_visits = 0
    forget = VirtualTime.forget

    def count(time: VirtualTime, max_callers: int) -> None:
        nonlocal num_visits
        num_visits += 1 + len(time.ends)
        forget(time, max_callers)

    draw = random.Random(seed)
    load = Load()
    with monkeypatch.context() as patch:
        patch.setattr(VirtualTime, "forget", count)
        for number in range(30_000):
            caller = f"{number if draw.random() < 0.9 else draw.randrange(number + 1)}"
            load.arrive(caller, priority=number % num_priorities, num_tokens=draw.randrange(1, 100))
            if len(load.in_flight) > num_waiting:
                load.serve()
            assert len(load.shares) <= 2 * (MAX_CALLERS + load.most_in_flight)
    assert num_visits <= 4 * 30_000


def test_callers_that_are_furthest_ahead_are_remembered_longest() -> None:
    """A caller that is ahead stays so however many others arrive, and a new caller does not wait for it."""
    load = Load()
    load.arrive("ahead", num_tokens=1_000_000)
    for number in range(10 * MAX_CALLERS):
        load.arrive(f"caller {number}")
    assert len(load.shares) <= 2 * MAX_CALLERS
    assert load.arrive("ahead").virtual_start == 1_000_000.0
    assert load.arrive("newcomer").virtual_start <= 100.0


def test_a_priority_without_sequences_is_forgotten() -> None:
    load = Load()
    for priority in range(3 * MAX_CALLERS):
        load.arrive("a", priority=priority)
        load.serve()
    load.arrive("a")
    assert len(load.shares) == 1


def test_a_long_queue_of_served_callers_is_not_scanned(build_world: Callable[..., Any]) -> None:
    """Each step looks for callers without a running sequence."""
    world = build_world(max_num_sequences=2)
    for _ in range(200):
        world.add(range(1, 9), caller="many", max_tokens=4, ignore_eos=True)
    world.step()
    back = world.add(range(1, 9), caller="back", priority=5, max_tokens=4, ignore_eos=True)
    waiting = world.scheduler._pool.waiting
    assert [sequence.caller for sequence in waiting.heads] == ["many", "back"]
    world.run()
    assert back.finish_reason is not None


def test_a_continuation_starts_now_and_is_charged_only_for_its_completion() -> None:
    """Ahead of its own caller's other sequences, and behind those of other callers that are due."""
    shares = FairShares()
    assert shares.start_of(PLAIN, "searching", 1000) == 0.0
    assert shares.start_of(PLAIN, "searching", 1, is_continuation=True) == 0.0
    assert shares.start_of(PLAIN, "searching", 10) == 1001.0
    assert shares.start_of(PLAIN, "other", 10) == 0.0


def test_a_long_beam_search_starves_no_caller(build_world: Callable[..., Any]) -> None:
    """Each of its steps is more one-token sequences than there are slots."""
    world = build_world(max_num_sequences=4)
    modest = None
    for step in range(60):
        for seed in range(12):
            world.add(range(1, 40), seed=seed, caller="searching", is_continuation=step > 0, max_tokens=1)
        if step == 3:
            modest = world.add(range(1, 9), caller="modest", max_tokens=10, ignore_eos=True)
        world.step()
    assert modest is not None
    assert modest.finish_reason is not None
    world.run()


def test_a_sequence_that_shares_a_prefix_with_a_victim_preempts_only_if_that_helps(
    build_world: Callable[..., Any], assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Preemption does not free blocks that both need. If it can't help, the new sequence waits without it."""
    common = [*range(1, 40)] * 7
    world = build_world(num_blocks=21, max_num_sequences=8, max_step_tokens=512)
    for seed in range(2):
        world.add(common[:256], seed=seed, caller="a", max_tokens=100, ignore_eos=True, num_positions=1024)
        world.step()
    newcomer = world.add(common[:256] + [7] * 320, caller="b", max_tokens=4, ignore_eos=True, num_positions=1024)
    num_steps = 0
    while world.is_waiting(newcomer):
        world.step()
        num_steps += 1
    assert world.num_preempted <= 2
    world.run()
