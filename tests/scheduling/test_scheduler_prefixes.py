from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.scheduling.sequence import Sequence

World = Any
"""tests/scheduling/conftest.py has it."""
BuildWorld = Callable[..., World]


# ---- the prefix cache


def test_a_cached_prefix_is_not_computed_again(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world(max_step_tokens=200)
    world.add(range(100), max_tokens=2)
    world.run()
    again = world.add([*range(80), 7, 7, 7], max_tokens=2)
    assert world.chunks(world.schedule()) == {again.sequence_id: 83 - 64}
    world.run()
    assert again.num_cached_tokens == 64
    assert (world.num_prefix_queried_tokens, world.num_prefix_hit_tokens) == (183, 64)
    assert_undisturbed(again)


def test_a_fully_cached_prompt_computes_its_last_block(build_world: BuildWorld) -> None:
    """Its last token's logits are needed, and a cached block is never written again."""
    world = build_world()
    world.add(range(64), max_tokens=2)
    world.run()
    again = world.add(range(64), max_tokens=2)
    world.run()
    assert again.num_cached_tokens == 32


def test_completions_are_cached_too(build_world: BuildWorld) -> None:
    """The next turn of a conversation finds the last response."""
    world = build_world()
    first = world.add(range(20), max_tokens=60, ignore_eos=True)
    world.run()
    second = world.add([*first.token_ids, 1, 2], max_tokens=2)
    world.run()
    assert second.num_cached_tokens == 64


def test_sequences_share_blocks_while_they_run(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=200)
    world.add(range(100), max_tokens=20, ignore_eos=True)
    world.step()
    held = world.kv_cache_usage
    world.add(range(100), max_tokens=20, ignore_eos=True)
    world.step()
    assert held == 4 / 64
    assert world.kv_cache_usage == 5 / 64
    assert world.scheduler.num_free_blocks == 59
    world.run()
    assert world.kv_cache_usage == 0


def test_a_block_is_shared_only_after_it_is_computed(build_world: BuildWorld) -> None:
    """Two equal prompts in one step: the second can't read what the first has yet to write."""
    world = build_world(max_step_tokens=200)
    first, second = world.add(range(70), max_tokens=3), world.add(range(70), max_tokens=3)
    assert set(world.chunks(world.schedule()).values()) == {70}
    world.run()
    assert first.token_ids == second.token_ids


def test_scored_prompts_use_no_cached_blocks(build_world: BuildWorld) -> None:
    """They need the logits of every prompt token."""
    world = build_world()
    world.add(range(100), max_tokens=2)
    world.run()
    scored = world.add(range(100), max_tokens=2, num_prompt_logprobs=2)
    world.run()
    assert scored.num_cached_tokens == 0
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(1, 100))


@pytest.mark.parametrize("max_step_tokens", [7, 200])
@pytest.mark.parametrize("first_scored_token", [1, 32, 33, 70, 99])
def test_prompt_tokens_that_are_not_scored_may_come_from_the_cache(
    first_scored_token: int, max_step_tokens: int, build_world: BuildWorld
) -> None:
    """The token before the first scored one is computed, for its logits."""
    world = build_world(max_step_tokens=max_step_tokens)
    world.add(range(100), max_tokens=2)
    world.run()
    scored = world.add(range(100), max_tokens=0, num_prompt_logprobs=0, first_scored_token=first_scored_token)
    world.run()
    assert scored.num_cached_tokens == (first_scored_token - 1) // 32 * 32
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(first_scored_token, 100))


def test_the_prefix_cache_can_be_off(build_world: BuildWorld) -> None:
    world = build_world(is_prefix_caching=False)
    leader = world.add(range(64), max_tokens=2)
    follower = world.add(range(64), max_tokens=2, leader=leader)
    world.run()
    assert follower.num_cached_tokens == 0


# ---- leaders and followers


def test_followers_share_the_prompt_that_their_leader_computes(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Four completions of one prompt compute its whole blocks once, and the remaining tokens four times."""
    world = build_world(max_step_tokens=300)
    leader = world.add(range(100), max_tokens=1, seed=1, ignore_eos=True)
    followers = [world.add(range(100), max_tokens=1, seed=2 + i, leader=leader, ignore_eos=True) for i in range(3)]
    assert world.chunks(world.schedule()) == {leader.sequence_id: 100}
    world.run()
    assert [follower.num_cached_tokens for follower in followers] == [96] * 3
    assert world.num_tokens_computed == 100 + 3 * 4
    for sequence in (leader, *followers):
        assert_undisturbed(sequence)


def test_followers_delay_no_other_sequence(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=150)
    leader = world.add(range(100), max_tokens=9)
    follower = world.add(range(100), max_tokens=9, leader=leader)
    other = world.add([1, 2, 3], max_tokens=9)
    assert world.num_waiting == 3
    assert set(world.chunks(world.schedule())) == {leader.sequence_id, other.sequence_id}
    assert world.is_waiting(follower)
    world.run()


@pytest.mark.parametrize("num_steps", [0, 1])
def test_followers_continue_without_their_leader(
    build_world: BuildWorld, num_steps: int, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world(max_step_tokens=40)
    leader = world.add(range(100), max_tokens=2)
    followers = [world.add(range(100), max_tokens=2, leader=leader) for _ in range(2)]
    for _ in range(num_steps):
        world.step()
    world.scheduler.finish(leader.sequence_id, FinishReason.ABORT)
    world.run()
    for follower in followers:
        assert_undisturbed(follower)


def test_a_waiting_follower_can_be_aborted(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=40)
    leader = world.add(range(100), max_tokens=2)
    follower = world.add(range(100), max_tokens=2, leader=leader)
    world.step()
    assert world.scheduler.finish(follower.sequence_id, FinishReason.ABORT)
    assert world.num_waiting == 0
    world.run()


def test_followers_stop_waiting_for_a_preempted_leader(build_world: BuildWorld) -> None:
    """A decode that needs a block preempts the leader during its prefill."""
    world = build_world(num_blocks=6, max_step_tokens=2)
    world.add([1], max_tokens=150, ignore_eos=True)
    leader = world.add(range(100), max_tokens=2)
    follower = world.add(range(100), max_tokens=2, leader=leader)
    while not world.num_preempted:
        assert follower.leader_id == leader.sequence_id
        world.step()
    assert world.is_waiting(leader)
    assert follower.leader_id is None
    world.run()


def test_a_preempted_leader_is_not_waited_for(build_world: BuildWorld) -> None:
    """It may find all of its prompt in the cache again, and then has no prefill to wait for."""
    world = build_world(num_blocks=9, max_step_tokens=300)
    world.add(range(1, 97), max_tokens=60, ignore_eos=True)
    leader = world.add(range(97), max_tokens=156, ignore_eos=True)
    while not world.num_preempted:
        world.step()
    follower = world.add(range(97), max_tokens=1, leader=leader)
    while follower.finish_reason is None:
        world.step()
    assert leader.finish_reason is None
    world.run()


def test_a_leader_with_a_cached_prompt_delays_no_follower(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=200)
    world.add(range(70), max_tokens=1)
    world.run()
    leader = world.add(range(70), max_tokens=50, ignore_eos=True)
    follower = world.add(range(70), max_tokens=1, leader=leader)
    world.step()
    world.step()
    assert follower.finish_reason is not None


def test_a_follower_without_a_whole_block_to_share_does_not_wait(build_world: BuildWorld) -> None:
    world = build_world()
    leader = world.add(range(32), max_tokens=2)
    world.add(range(32), max_tokens=2, leader=leader)
    assert len(world.schedule().rows) == 2
