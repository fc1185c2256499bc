"""One caller's many requests and another's few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.scheduling.fairness import MAX_IDLE_LINES, FairShares
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus

PLAIN = (False, 0)
"""The standing of all that says nothing of it."""


def finish_order(world: Any) -> list[str]:
    """The callers of the sequences, as they end."""
    order: list[str] = []
    while world.scheduler.has_work:
        order.extend(update.sequence.caller for update in world.step() if update.sequence.finish_reason is not None)
    return order


def test_a_first_request_goes_before_a_thousand_of_somebody_else(build_world: Callable[..., Any]) -> None:
    """Behind what runs, and what is due by then; not behind what was there before."""
    world = build_world(max_num_sequences=1)
    for _ in range(1000):
        world.add(range(1, 9), caller="greedy", max_tokens=4, ignore_eos=True)
    world.step()
    modest = world.add(range(1, 9), caller="modest", max_tokens=4, ignore_eos=True)
    num_ended = 0
    while modest.finish_reason is None:
        num_ended += sum(update.sequence.finish_reason is not None for update in world.step())
    assert num_ended <= 3


def test_callers_take_turns_by_tokens(build_world: Callable[..., Any]) -> None:
    """Who asks for twice as much at a time has half as many turns."""
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
def test_who_has_nothing_running_gets_a_place_from_who_has_most(
    build_world: Callable[..., Any], assert_undisturbed: Callable[[Sequence], None], limits: dict[str, int]
) -> None:
    """Though all places, or all blocks, are taken for long: in the next step, and whoever gave way loses no token."""
    world = build_world(**limits)
    for seed in range(6):
        world.add(range(1, 60), seed=seed, caller="greedy", max_tokens=150, ignore_eos=True)
    world.add(range(1, 20), caller="other", max_tokens=150, ignore_eos=True)
    for _ in range(8):
        world.step()
    modest = world.add(range(5, 70), caller="modest", max_tokens=3, ignore_eos=True)
    world.step()
    assert modest.status is SequenceStatus.RUNNING
    assert world.scheduler.num_preemptions > 0
    world.run()
    for sequence in world.sequences.values():
        assert_undisturbed(sequence)


def test_nobody_loses_the_only_one_that_runs(build_world: Callable[..., Any]) -> None:
    world = build_world(max_num_sequences=2)
    firsts = [world.add(range(1, 9), caller=name, max_tokens=20, ignore_eos=True) for name in ("a", "b")]
    world.step()
    third = world.add(range(1, 9), caller="c", max_tokens=2, ignore_eos=True)
    for _ in range(10):
        world.step()
    assert world.is_waiting(third)
    assert not any(map(world.is_waiting, firsts))
    world.run()


def test_no_guest_throws_out_a_lower_priority(build_world: Callable[..., Any]) -> None:
    world = build_world(max_num_sequences=2)
    for _ in range(2):
        world.add(range(1, 9), caller="urgent", priority=-1, max_tokens=20, ignore_eos=True)
    world.step()
    guest = world.add(range(1, 9), caller="batch", max_tokens=2, ignore_eos=True)
    for _ in range(10):
        world.step()
    assert world.is_waiting(guest)
    assert world.scheduler.num_preemptions == 0
    world.run()


def test_a_callers_low_priority_work_does_not_count_against_its_urgent_work() -> None:
    shares = FairShares()
    shares.start_of((False, 9), "a", 1_000_000)
    shares.start_of(PLAIN, "b", 10)
    assert shares.start_of(PLAIN, "a", 1) == 0.0


def test_callers_who_are_owed_nothing_are_forgotten() -> None:
    """However many come: memory is bounded, and who is ahead stays so."""
    shares = FairShares()
    shares.start_of(PLAIN, "ahead", 1_000_000)
    for number in range(2 * MAX_IDLE_LINES):
        shares.start_of(PLAIN, f"caller {number}", 0)
    assert len(shares._ends) <= MAX_IDLE_LINES
    assert shares.start_of(PLAIN, "ahead", 1) == 1_000_000.0


def test_what_continues_starts_now_and_counts_only_what_it_adds() -> None:
    """Ahead of its own caller's others, who wait their turn, and behind those of others who are due."""
    shares = FairShares()
    assert shares.start_of(PLAIN, "searching", 1000) == 0.0
    assert shares.start_of(PLAIN, "searching", 1, is_continuation=True) == 0.0
    assert shares.start_of(PLAIN, "searching", 10) == 1001.0
    assert shares.start_of(PLAIN, "other", 10) == 0.0


def test_a_search_that_goes_on_and_on_starves_nobody(build_world: Callable[..., Any]) -> None:
    """Each of its steps is many sequences for one token each, more than there are places."""
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


def test_a_guest_that_shares_its_beginning_with_a_victim_preempts_nobody_in_vain(
    build_world: Callable[..., Any], assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Blocks that both need make no room: who can't be helped that way waits, and the others go on undisturbed."""
    common = [*range(1, 40)] * 7
    world = build_world(num_blocks=21, max_num_sequences=8, max_step_tokens=512)
    for seed in range(2):
        world.add(common[:256], seed=seed, caller="a", max_tokens=100, ignore_eos=True, num_positions=1024)
        world.step()
    guest = world.add(common[:256] + [7] * 320, caller="b", max_tokens=4, ignore_eos=True, num_positions=1024)
    num_steps = 0
    while world.is_waiting(guest):
        world.step()
        num_steps += 1
    assert world.scheduler.num_preemptions <= 2
    world.run()
