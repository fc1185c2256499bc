"""Batch work has what the others leave, and loses nothing by it."""

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
def test_whoever_comes_gets_a_place_in_the_next_step(
    build_world: BatchWorld, assert_undisturbed: Callable[[Sequence], None], limits: dict[str, int], length: int
) -> None:
    """Though batch work, its own caller's too, has all places, or all blocks and shares some; nothing of it is lost."""
    world = build_world(**limits)
    add_batch(world, 8, length=length)
    for _ in range(8):
        world.step()
    guests = [world.add(range(5, 70), seed=seed, max_tokens=3, ignore_eos=True) for seed in range(2)]
    world.step()
    assert guests[0].status is SequenceStatus.RUNNING
    world.run()
    assert world.num_preempted > 0
    for sequence in world.sequences.values():
        assert_undisturbed(sequence)


def test_among_itself_no_gap_bounds_its_prompts(build_world: BatchWorld) -> None:
    world = build_world(max_step_tokens=256)
    add_batch(world, 1)
    world.step()
    (late,) = add_batch(world, 1, length=200)
    assert world.chunks(world.schedule())[late.sequence_id] == 200


def test_what_gives_way_goes_on_when_there_is_room_again(build_world: BatchWorld) -> None:
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
def test_beside_others_it_has_few_tokens_of_a_step(build_world: BatchWorld, max_batch_step_tokens: int) -> None:
    """In decodes and in prefills; what has none keeps its blocks meanwhile, and waits for nobody afterwards."""
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
        assert sum(chunks.values()) == max(1, max_batch_step_tokens), "somebody may ask on at once"
        world.update(plan)
    while any(len(sequence.token_ids) - sequence.num_computed_tokens > 1 for sequence in batch):
        world.step()
    assert set(world.chunks(world.schedule())) == {sequence.sequence_id for sequence in batch}
    assert world.num_preempted == 0
    world.run()


def test_the_others_do_not_feel_it(build_world: BatchWorld) -> None:
    """They have the same tokens at the same steps, with much batch work and without; a full step takes none of it."""
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


def test_it_is_behind_all_others_whatever_their_priority(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=1)
    add_batch(world, 1, max_tokens=5)
    late = world.add(range(1, 9), priority=1_000_000, max_tokens=5, ignore_eos=True)
    world.step()
    assert late.status is SequenceStatus.RUNNING
    world.run()


def test_one_callers_batch_does_not_keep_anothers_from_its_turn(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=4)
    add_batch(world, 40, caller="greedy")
    world.step()
    (modest,) = add_batch(world, 1, caller="modest", max_tokens=3)
    world.step()
    assert modest.status is SequenceStatus.RUNNING
    world.run()


def test_it_is_counted_apart(build_world: BatchWorld) -> None:
    world = build_world(max_num_sequences=2)
    add_batch(world, 4)
    world.add(range(1, 9), max_tokens=4, ignore_eos=True)
    world.step()
    assert (world.num_running, world.num_waiting, world.num_batch) == (1, 0, 4)
    world.run()
