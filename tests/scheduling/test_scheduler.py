from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.plan import StepPlan
from distilgpt2_api.scheduling.sequence import Sequence, SequenceStatus

World = Any
"""tests/scheduling/conftest.py has it."""
BuildWorld = Callable[..., World]


def num_new_tokens(plan: StepPlan) -> dict[int, int]:
    return {row.sequence_id: row.num_new_tokens for row in plan.rows}


def is_waiting(sequence: Sequence) -> bool:
    return sequence.status is SequenceStatus.WAITING


# ---- what a step is made of


def test_nothing_to_do_is_no_plan(build_world: BuildWorld) -> None:
    world = build_world()
    assert not world.scheduler.has_work
    assert world.scheduler.schedule() is None
    world.scheduler.check_idle()


def test_a_sequence_gets_its_tokens_one_a_step(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world()
    sequence = world.add(range(1, 11), max_tokens=5, ignore_eos=True)
    updates = [update for _ in range(5) for update in world.step()]
    assert [update.token_id for update in updates] == sequence.token_ids[10:]
    assert all(update.sequence is sequence for update in updates)
    assert sequence.finish_reason is FinishReason.LENGTH
    assert sequence.num_completion_tokens == 5
    assert_undisturbed(sequence)
    world.scheduler.check_idle()


def test_a_decode_never_stalls_behind_a_prefill(build_world: BuildWorld) -> None:
    """Every step of a long prefill carries the running stream's token as well, within the budget."""
    world = build_world(max_step_tokens=20)
    stream = world.add([1], max_tokens=50, ignore_eos=True)
    world.step()
    prompt = world.add(range(100), max_tokens=1)
    while prompt.finish_reason is None:
        plan = world.schedule()
        chunks = num_new_tokens(plan)
        assert chunks[stream.sequence_id] == 1
        assert plan.num_tokens <= 20
        world.update(plan)
    assert world.num_steps == 1 + 6  # 100 tokens, 19 a step


def test_a_prefill_in_chunks_gives_what_a_whole_one_gives(build_world: BuildWorld) -> None:
    completions = []
    for max_step_tokens in (3, 32, 33, 500):
        world = build_world(max_step_tokens=max_step_tokens)
        sequence = world.add(range(100), max_tokens=8)
        world.run()
        completions.append(sequence.token_ids)
    assert all(completion == completions[0] for completion in completions)


def test_earlier_prefills_go_before_later_ones_and_newcomers_last(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=50)
    first, second, third = (world.add(range(i, i + 70), max_tokens=2) for i in range(3))
    assert num_new_tokens(world.schedule()) == {first.sequence_id: 50}
    world.update(world.schedule())
    assert num_new_tokens(world.schedule()) == {first.sequence_id: 20, second.sequence_id: 30}
    assert is_waiting(third)


def test_admission_is_first_come_first_served(build_world: BuildWorld) -> None:
    """A short request behind one that doesn't fit yet doesn't overtake it."""
    world = build_world(num_blocks=8)
    world.add(range(200), max_tokens=2)
    long = world.add(range(1, 101), max_tokens=2)
    short = world.add([1], max_tokens=2)
    world.step()
    assert is_waiting(long)
    assert is_waiting(short)
    assert (world.scheduler.num_waiting, world.scheduler.num_waiting_tokens) == (2, 101)
    world.run()


def test_no_more_rows_than_sequences_allowed(build_world: BuildWorld) -> None:
    world = build_world(max_num_sequences=3)
    for i in range(5):
        world.add([i + 1], max_tokens=3, ignore_eos=True)
    assert len(world.schedule().rows) == 3
    assert (world.scheduler.num_running, world.scheduler.num_waiting) == (3, 2)
    world.run()


def test_a_budget_smaller_than_the_rows_stalls_nobody(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """With two tokens a step there are two rows: whoever runs advances in every step."""
    world = build_world(max_step_tokens=2, max_num_sequences=8)
    sequences = [world.add([i + 1, 5, 6], max_tokens=4) for i in range(5)]
    world.run()
    for sequence in sequences:
        assert_undisturbed(sequence)


def test_a_plan_without_an_update_leaves_no_trace(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """A step that failed can be planned again."""
    world = build_world()
    sequences = [world.add(range(i, i + 60), max_tokens=40) for i in range(3)]
    while world.scheduler.has_work:
        lost, plan = num_new_tokens(world.schedule()), world.schedule()
        assert num_new_tokens(plan) == lost
        world.update(plan)
    for sequence in sequences:
        assert_undisturbed(sequence)


# ---- how a sequence ends


def test_end_of_text_ends_a_sequence_and_is_its_last_token(build_world: BuildWorld) -> None:
    world = build_world()
    sequence = world.add(range(40, 50), max_tokens=200)
    world.run()
    assert sequence.finish_reason is FinishReason.STOP
    assert sequence.token_ids[-1] == sequence.stop_token_id == 0


def test_end_of_text_can_be_ignored(build_world: BuildWorld) -> None:
    world = build_world()
    sequence = world.add(range(40, 50), max_tokens=200, ignore_eos=True)
    world.run()
    assert 0 in sequence.token_ids[10:-1]
    assert (sequence.finish_reason, sequence.stop_token_id) == (FinishReason.LENGTH, None)


def test_a_stop_token_ends_a_sequence(build_world: BuildWorld) -> None:
    world = build_world()
    alone = world.add([1, 2, 3], max_tokens=10, ignore_eos=True)
    world.run()
    stop = alone.token_ids[5]
    sequence = world.add([1, 2, 3], max_tokens=10, ignore_eos=True, stop_token_ids=(stop,))
    world.run()
    assert (sequence.finish_reason, sequence.stop_token_id) == (FinishReason.STOP, stop)
    assert sequence.token_ids == alone.token_ids[: alone.token_ids.index(stop, 3) + 1]


def test_the_last_position_ends_a_sequence(build_world: BuildWorld) -> None:
    world = build_world()
    sequence = world.add(range(1, 21), max_tokens=100, num_positions=30, ignore_eos=True)
    world.run()
    assert len(sequence.token_ids) == 30
    assert sequence.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(("max_tokens", "num_positions"), [(0, 256), (5, 100)])
def test_a_prompt_can_be_scored_without_a_completion(
    build_world: BuildWorld, max_tokens: int, num_positions: int
) -> None:
    """No tokens wanted, or no position left for one: the sequence ends with its prefill, all of it scored."""
    world = build_world(max_step_tokens=33)
    sequence = world.add(range(100), max_tokens=max_tokens, num_positions=num_positions, num_prompt_logprobs=0)
    updates = []
    while world.scheduler.has_work:
        updates += world.step()
    assert [update.token_id for update in updates] == [None] * 4
    assert sequence.finish_reason is FinishReason.LENGTH
    assert [score.token_id for score in world.scores[sequence.sequence_id]] == list(range(1, 100))


def test_a_row_that_fails_ends_its_sequence_alone_and_leaves_nothing_in_the_cache(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world(max_step_tokens=200)
    bad, good = world.add(range(64), max_tokens=3), world.add(range(1, 65), max_tokens=3)
    world.failing_ids.add(bad.sequence_id)
    updates = world.step()
    assert [update.result.error for update in updates] == ["not finite", None]
    assert bad.finish_reason is FinishReason.ERROR
    again = world.add(range(64), max_tokens=3)
    world.run()
    assert again.num_cached_tokens == 0
    assert_undisturbed(good)
    assert_undisturbed(again)


def test_finishing_frees_at_once_and_only_once(build_world: BuildWorld) -> None:
    world = build_world(max_num_sequences=1)
    running, waiting = world.add(range(70), max_tokens=9), world.add(range(70), max_tokens=9)
    world.step()
    for sequence in (running, waiting):
        assert world.scheduler.finish(sequence.sequence_id, FinishReason.ABORT)
        assert not world.scheduler.finish(sequence.sequence_id, FinishReason.STOP)
        assert sequence.finish_reason is FinishReason.ABORT
    assert not world.scheduler.finish(999, FinishReason.ABORT)
    world.scheduler.check_idle()
    world.scheduler.check_accounting()
    assert world.scheduler.schedule() is None


def test_a_sequence_aborted_while_its_step_runs_ignores_the_result(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world()
    gone, stays = world.add([1, 2], max_tokens=3), world.add([3, 4], max_tokens=3)
    plan = world.schedule()
    world.scheduler.finish(gone.sequence_id, FinishReason.ABORT)
    assert [update.sequence for update in world.update(plan)] == [stays]
    assert gone.token_ids == [1, 2]
    world.run()
    assert_undisturbed(stays)


def test_idle_with_a_block_held_is_an_error(build_world: BuildWorld) -> None:
    world = build_world()
    world.add([1], max_tokens=5, ignore_eos=True)
    world.step()
    with pytest.raises(AssertionError, match="1 blocks are held"):
        world.scheduler.check_idle()


# ---- the prefix cache


def test_a_known_beginning_is_not_computed_again(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    world = build_world(max_step_tokens=200)
    world.add(range(100), max_tokens=2)
    world.run()
    again = world.add([*range(80), 7, 7, 7], max_tokens=2)
    assert num_new_tokens(world.schedule()) == {again.sequence_id: 83 - 64}
    world.run()
    assert again.num_cached_tokens == 64
    assert (world.scheduler.num_prefix_queried_tokens, world.scheduler.num_prefix_hit_tokens) == (183, 64)
    assert_undisturbed(again)


def test_a_prompt_known_whole_computes_its_last_block(build_world: BuildWorld) -> None:
    """Its last token's logits are needed, and a cached block is never written again."""
    world = build_world()
    world.add(range(64), max_tokens=2)
    world.run()
    again = world.add(range(64), max_tokens=2)
    world.run()
    assert again.num_cached_tokens == 32


def test_a_completion_is_a_beginning_too(build_world: BuildWorld) -> None:
    """The next turn of a conversation finds the last one's answer."""
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
    held = world.scheduler.kv_cache_usage
    world.add(range(100), max_tokens=20, ignore_eos=True)
    world.step()
    assert held == 4 / 64
    assert world.scheduler.kv_cache_usage == 5 / 64
    assert world.scheduler.num_free_blocks == 59
    world.run()
    assert world.scheduler.kv_cache_usage == 0


def test_a_block_is_shared_only_when_it_was_computed(build_world: BuildWorld) -> None:
    """Two equal prompts in one step: the second can't read what the first has yet to write."""
    world = build_world(max_step_tokens=200)
    first, second = world.add(range(70), max_tokens=3), world.add(range(70), max_tokens=3)
    assert set(num_new_tokens(world.schedule()).values()) == {70}
    world.run()
    assert first.token_ids == second.token_ids


def test_prompt_scores_take_nothing_from_the_cache(build_world: BuildWorld) -> None:
    """They need the logits of every prompt token."""
    world = build_world()
    world.add(range(100), max_tokens=2)
    world.run()
    scored = world.add(range(100), max_tokens=2, num_prompt_logprobs=2)
    world.run()
    assert scored.num_cached_tokens == 0
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(1, 100))


def test_the_prefix_cache_can_be_off(build_world: BuildWorld) -> None:
    world = build_world(is_prefix_caching=False)
    leader = world.add(range(64), max_tokens=2)
    follower = world.add(range(64), max_tokens=2, leader=leader)
    world.run()
    assert follower.num_cached_tokens == 0


# ---- preemption


def test_the_latest_arrival_gives_way_and_loses_nothing(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Three sequences that together need more blocks than there are all come to what they would come to alone."""
    world = build_world(num_blocks=8)
    sequences = [world.add(range(i, i + 30), max_tokens=110, ignore_eos=True) for i in range(3)]
    num_preempted = 0
    while world.scheduler.has_work:
        plan = world.schedule()
        num_preempted += plan.num_preempted
        assert not is_waiting(sequences[0]), "the first arrival is never preempted"
        world.update(plan)
    assert num_preempted == world.scheduler.num_preemptions > 0
    for sequence in sequences:
        assert_undisturbed(sequence)


def test_who_is_preempted_goes_to_the_front_and_finds_its_blocks(build_world: BuildWorld) -> None:
    world = build_world(num_blocks=6)
    first = world.add(range(30), max_tokens=100, ignore_eos=True)
    second = world.add(range(1, 31), max_tokens=100, ignore_eos=True)
    world.step()
    newcomer = world.add([5] * 100, max_tokens=1)
    while not world.scheduler.num_preemptions:
        world.step()
    assert second.num_computed_tokens == 0
    num_tokens = len(second.token_ids)
    while first.finish_reason is None:
        world.step()
        assert is_waiting(newcomer)
    num_computed = world.num_tokens_computed
    world.step()
    assert not is_waiting(second)
    assert is_waiting(newcomer)
    assert world.num_tokens_computed - num_computed < num_tokens, "part of it came from the cache"
    assert second.num_cached_tokens == 0, "which is not the caller's doing"
    world.run()


@pytest.mark.parametrize("max_step_tokens", [1, 30, 64])
def test_a_preemption_scores_nothing_twice(build_world: BuildWorld, max_step_tokens: int) -> None:
    """Neither in the middle of a prefill nor after it."""
    world = build_world(num_blocks=4, max_step_tokens=max_step_tokens, max_num_sequences=2)
    world.add(range(28), max_tokens=70, ignore_eos=True)
    scored = world.add(range(40), max_tokens=50, num_prompt_logprobs=1, ignore_eos=True)
    world.run()
    assert [score.token_id for score in world.scores[scored.sequence_id]] == list(range(1, 40))


@pytest.mark.parametrize("max_step_tokens", [4, 5, 6])
def test_a_prefill_preempted_halfway_goes_on_scoring_where_it_was(
    build_world: BuildWorld, max_step_tokens: int
) -> None:
    world = build_world(num_blocks=9, max_step_tokens=max_step_tokens)
    world.add(range(30), max_tokens=70, ignore_eos=True)
    scored = world.add(range(200), max_tokens=1, num_prompt_logprobs=1)
    while not world.scheduler.num_preemptions:
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


@pytest.mark.parametrize(("num_prompt_tokens", "max_tokens", "param"), [(65, 1, "prompt"), (40, 26, "max_tokens")])
def test_a_sequence_that_can_never_fit_is_refused(
    build_world: BuildWorld, num_prompt_tokens: int, max_tokens: int, param: str
) -> None:
    world = build_world(num_blocks=2)
    with pytest.raises(InvalidRequestError, match="KV cache holds 64") as caught:
        world.add(range(num_prompt_tokens), max_tokens=max_tokens)
    assert caught.value.param == param
    assert not world.scheduler.has_work


# ---- leaders and followers


def test_followers_share_the_prompt_that_their_leader_computes(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """Four completions of one prompt cost one prefill, and three times what is left of it beside whole blocks."""
    world = build_world(max_step_tokens=300)
    leader = world.add(range(100), max_tokens=1, seed=1, ignore_eos=True)
    followers = [world.add(range(100), max_tokens=1, seed=2 + i, leader=leader, ignore_eos=True) for i in range(3)]
    assert num_new_tokens(world.schedule()) == {leader.sequence_id: 100}
    world.run()
    assert [follower.num_cached_tokens for follower in followers] == [96] * 3
    assert world.num_tokens_computed == 100 + 3 * 4
    for sequence in (leader, *followers):
        assert_undisturbed(sequence)


def test_followers_hold_up_nobody_else(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=150)
    leader = world.add(range(100), max_tokens=9)
    follower = world.add(range(100), max_tokens=9, leader=leader)
    other = world.add([1, 2, 3], max_tokens=9)
    assert world.scheduler.num_waiting == 3
    assert set(num_new_tokens(world.schedule())) == {leader.sequence_id, other.sequence_id}
    assert is_waiting(follower)
    world.run()


@pytest.mark.parametrize("num_steps", [0, 1])
def test_followers_go_on_without_a_leader_that_is_gone(
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


def test_a_follower_can_be_aborted_while_it_stands_aside(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=40)
    leader = world.add(range(100), max_tokens=2)
    follower = world.add(range(100), max_tokens=2, leader=leader)
    world.step()
    assert world.scheduler.finish(follower.sequence_id, FinishReason.ABORT)
    assert world.scheduler.num_waiting == 0
    world.run()


def test_followers_of_a_preempted_leader_wait_no_longer(build_world: BuildWorld) -> None:
    """A decode that needs room throws the leader back in the middle of its prefill."""
    world = build_world(num_blocks=6, max_step_tokens=2)
    world.add([1], max_tokens=150, ignore_eos=True)
    leader = world.add(range(100), max_tokens=2)
    follower = world.add(range(100), max_tokens=2, leader=leader)
    while not world.scheduler.num_preemptions:
        assert follower.leader_id == leader.sequence_id
        world.step()
    assert is_waiting(leader)
    assert follower.leader_id is None
    world.run()


def test_a_preempted_leader_is_not_waited_for(build_world: BuildWorld) -> None:
    """It may find all of its prompt in the cache again, and then it has no prefill for anybody to wait for."""
    world = build_world(num_blocks=9, max_step_tokens=300)
    world.add(range(1, 97), max_tokens=60, ignore_eos=True)
    leader = world.add(range(97), max_tokens=156, ignore_eos=True)
    while not world.scheduler.num_preemptions:
        world.step()
    follower = world.add(range(97), max_tokens=1, leader=leader)
    while follower.finish_reason is None:
        world.step()
    assert leader.finish_reason is None
    world.run()


def test_a_leader_whose_prompt_is_known_already_holds_nobody_back(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=200)
    world.add(range(70), max_tokens=1)
    world.run()
    leader = world.add(range(70), max_tokens=50, ignore_eos=True)
    follower = world.add(range(70), max_tokens=1, leader=leader)
    world.step()
    world.step()
    assert follower.finish_reason is not None


def test_a_prompt_without_a_whole_block_to_share_waits_for_nobody(build_world: BuildWorld) -> None:
    world = build_world()
    leader = world.add(range(32), max_tokens=2)
    world.add(range(32), max_tokens=2, leader=leader)
    assert len(world.schedule().rows) == 2
