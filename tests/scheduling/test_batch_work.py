"""Batch work gets what other work leaves, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.scheduling.scheduler import QUIET_STEPS
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus

BatchWorld = Callable[..., Any]


def add_batch(world: Any, count: int, *, length: int = 9, max_tokens: int = 100, caller: str = "") -> list[Sequence]:
    return [
        world.add(range(1, length + 1), seed=seed, max_tokens=max_tokens, ignore_eos=True, is_batch=True, caller=caller)
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("limits", "length"), [({"max_num_sequences": 4}, 9), ({"num_blocks": 12}, 60), ({"num_blocks": 9}, 64)]
)
def test_a_new_request_gets_a_slot_in_the_next_step(
    build_world: BatchWorld, assert_undisturbed: Callable[[Sequence], None], limits: dict[str, int], length: int
) -> None:
    """Although batch work, even of the same caller, has all slots or all blocks; batch work loses no token."""
    world = build_world(**limits)
    add_batch(world, 8, length=length)
    for _ in range(8):
        world.step()
    newcomers = [world.add(range(5, 70), seed=seed, max_tokens=3, ignore_eos=True) for seed in range(2)]
    world.step()
    assert newcomers[0].status is SequenceStatus.RUNNING
    world.run()
    assert world.num_preempted > 0
    for sequence in world.sequences.values():
        assert_undisturbed(sequence)


def test_batch_prompts_are_not_limited_by_batch_decodes(build_world: BatchWorld) -> None:
    world = build_world(max_step_tokens=256)
    add_batch(world, 1)
    world.step()
    (late,) = add_batch(world, 1, length=200)
    assert world.chunks(world.schedule())[late.sequence_id] == 200


def test_preempted_batch_work_continues_when_it_fits_again(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=2)
    batch = add_batch(world, 2)
    world.step()
    world.add(range(1, 9), max_tokens=4, ignore_eos=True)
    world.step()
    assert [sequence.status for sequence in batch] == [SequenceStatus.RUNNING, SequenceStatus.WAITING]
    for _ in range(3 + QUIET_STEPS):
        world.step()
    assert [sequence.status for sequence in batch] == [SequenceStatus.RUNNING, SequenceStatus.WAITING]
    world.step()
    assert [sequence.status for sequence in batch] == [SequenceStatus.RUNNING, SequenceStatus.RUNNING]
    world.run()


@pytest.mark.parametrize("max_batch_step_tokens", [0, 3])
def test_beside_other_work_it_gets_few_tokens_of_a_step(build_world: BatchWorld, max_batch_step_tokens: int) -> None:
    """For decodes and prefills. A sequence without tokens keeps its blocks, and continues when the other work ends."""
    world = build_world(max_batch_step_tokens=max_batch_step_tokens)
    batch = add_batch(world, 4, length=40)
    world.step()
    newcomer = world.add(range(1, 9), max_tokens=12, ignore_eos=True)
    while newcomer.finish_reason is None:
        chunks = world.chunks(plan := world.schedule())
        assert sum(chunks.get(sequence.sequence_id, 0) for sequence in batch) == max_batch_step_tokens
        world.update(plan)
    for _ in range(QUIET_STEPS):
        chunks = world.chunks(plan := world.schedule())
        assert sum(chunks.values()) == max(1, max_batch_step_tokens), "a client may send its next request"
        world.update(plan)
    while any(len(sequence.token_ids) - sequence.num_computed_tokens > 1 for sequence in batch):
        world.step()
    assert set(world.chunks(world.schedule())) == {sequence.sequence_id for sequence in batch}
    assert world.num_preempted == 0
    world.run()


def test_other_work_is_not_affected(build_world: BatchWorld) -> None:
    """They get the same tokens in the same steps with and without batch work. A full step has none of it."""
    endings = []
    for num_batch in (0, 20):
        world = build_world(num_blocks=20, max_num_sequences=4, max_step_tokens=32, max_batch_step_tokens=4)
        add_batch(world, num_batch, length=50)
        if num_batch:
            for _ in range(5):
                world.step()
        begin = world.num_steps
        others: list[Sequence] = []
        ends: dict[int, int] = {}
        while len(ends) < 7:
            if len(others) < 7:
                others.append(world.add(range(3, 43), seed=len(others), max_tokens=20, ignore_eos=True))
            for update in world.step():
                if update.sequence in others and update.sequence.finish_reason is not None:
                    ends[others.index(update.sequence)] = world.num_steps - begin
        endings.append(ends)
        world.run()
    assert endings[0] == endings[1]


def test_it_comes_after_every_priority(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=1)
    add_batch(world, 1, max_tokens=5)
    late = world.add(range(1, 9), priority=1_000_000, max_tokens=5, ignore_eos=True)
    world.step()
    assert late.status is SequenceStatus.RUNNING
    world.run()


def test_one_callers_batch_does_not_starve_anothers(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=4)
    add_batch(world, 40, caller="greedy")
    world.step()
    (modest,) = add_batch(world, 1, caller="modest", max_tokens=3)
    world.step()
    assert modest.status is SequenceStatus.RUNNING
    world.run()


def test_it_is_counted_separately(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=2)
    add_batch(world, 4)
    world.add(range(1, 9), max_tokens=4, ignore_eos=True)
    world.step()
    assert (world.num_running, world.num_waiting, world.num_batch) == (1, 0, 4)
    world.run()
