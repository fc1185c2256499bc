from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.scheduling.sequence import Sequence

World = Any
"""tests/scheduling/conftest.py has it."""
BuildWorld = Callable[..., World]


def test_the_latest_arrival_is_preempted_and_loses_no_token(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Three sequences that together need more blocks than exist all get the tokens that they would get alone."""
    world = build_world(num_blocks=8)
    sequences = [world.add(range(i, i + 30), max_tokens=110, ignore_eos=True) for i in range(3)]
    while world.scheduler.has_work:
        plan = world.schedule()
        assert not world.is_waiting(sequences[0]), "the first arrival is never preempted"
        world.update(plan)
    assert world.num_preempted > 0
    for sequence in sequences:
        assert_undisturbed(sequence)


def test_the_highest_priority_is_preempted_first(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """If blocks run out, an early arrival with a high priority number is preempted first."""
    world = build_world(num_blocks=8)
    sequences = [
        world.add(range(i, i + 30), max_tokens=110, ignore_eos=True, priority=priority)
        for i, priority in enumerate([3, 0, 0])
    ]
    while world.num_preempted == 0:
        world.step()
    assert [world.is_waiting(sequence) for sequence in sequences] == [True, False, False]
    while world.scheduler.has_work:
        world.step()
        assert not world.is_waiting(sequences[1]), "the first in rank is never preempted"
    for sequence in sequences:
        assert_undisturbed(sequence)


def test_a_preempted_sequence_waits_behind_lower_priorities(build_world: BuildWorld) -> None:
    """Ahead of its equals, but behind the sequences that had a lower priority anyway."""
    world = build_world(num_blocks=6)
    world.add(range(30), max_tokens=100, ignore_eos=True)
    second = world.add(range(1, 31), max_tokens=100, ignore_eos=True, priority=1)
    world.step()
    equal = world.add([5] * 100, max_tokens=1, priority=1)
    urgent = world.add([6] * 100, max_tokens=1)
    order: list[Sequence] = []
    while world.scheduler.has_work:
        world.step()
        if world.num_preempted:
            order += [s for s in (second, equal, urgent) if not world.is_waiting(s) and s not in order]
    assert order == [urgent, second, equal]


def test_a_preempted_sequence_is_next_and_finds_its_blocks(build_world: BuildWorld) -> None:
    world = build_world(num_blocks=6)
    first = world.add(range(30), max_tokens=100, ignore_eos=True)
    second = world.add(range(1, 31), max_tokens=100, ignore_eos=True)
    world.step()
    newcomer = world.add([5] * 100, max_tokens=1)
    while not world.num_preempted:
        world.step()
    assert second.num_computed_tokens == 0
    num_tokens = len(second.token_ids)
    while first.finish_reason is None:
        world.step()
        assert world.is_waiting(newcomer)
    num_computed = world.num_tokens_computed
    world.step()
    assert not world.is_waiting(second)
    assert world.is_waiting(newcomer)
    assert world.num_tokens_computed - num_computed < num_tokens, "part of it comes from the cache"
    assert second.num_cached_tokens == 0, "these are the sequence's own blocks"
    world.run()


@pytest.mark.parametrize("max_step_tokens", [1, 30, 64])
def test_a_preemption_scores_nothing_twice(build_world: BuildWorld, max_step_tokens: int) -> None:
    """Neither during a prefill nor after it."""
    world = build_world(num_blocks=4, max_step_tokens=max_step_tokens, max_num_sequences=2)
    world.add(range(28), max_tokens=70, ignore_eos=True)
    scored = world.add(range(40), max_tokens=50, num_prompt_logprobs=1, ignore_eos=True)
    world.run()
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(1, 40))


@pytest.mark.parametrize("max_step_tokens", [4, 5, 6])
def test_a_preempted_prefill_continues_scoring_where_it_was(build_world: BuildWorld, max_step_tokens: int) -> None:
    world = build_world(num_blocks=9, max_step_tokens=max_step_tokens)
    world.add(range(30), max_tokens=70, ignore_eos=True)
    scored = world.add(range(200), max_tokens=1, num_prompt_logprobs=1)
    while not world.num_preempted:
        world.step()
    assert 0 < len(world.scores[scored.sequence_id]) < 199
    world.run()
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(1, 200))


def test_a_sequence_that_fits_alone_runs_in_the_smallest_cache(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world(num_blocks=2)
    sequences = [world.add(range(i, i + 40), max_tokens=25, ignore_eos=True) for i in range(2)]
    world.run()
    for sequence in sequences:
        assert_undisturbed(sequence)
