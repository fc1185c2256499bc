from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.scheduling.sequence import Sequence

World = Any
"""tests/scheduling/conftest.py has it."""
BuildWorld = Callable[..., World]


# ---- the contents of a step


def test_without_work_there_is_no_plan(build_world: BuildWorld) -> None:
    world = build_world()
    assert not world.scheduler.has_work
    assert world.scheduler.schedule() is None
    world.scheduler.check_idle()


def test_a_sequence_gets_one_token_per_step(
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
    """Every step of a long prefill also computes the running sequence's token, within the budget."""
    world = build_world(max_step_tokens=20)
    stream = world.add([1], max_tokens=50, ignore_eos=True)
    world.step()
    prompt = world.add(range(100), max_tokens=1)
    while prompt.finish_reason is None:
        plan = world.schedule()
        chunks = world.chunks(plan)
        assert chunks[stream.sequence_id] == 1
        assert plan.num_tokens <= 20
        world.update(plan)
    assert world.num_steps == 1 + 6  # 100 tokens, 19 a step


def test_prompts_get_more_tokens_the_more_sequences_decode_or_wait(build_world: BuildWorld) -> None:
    """Inter-token latency is bounded, and waiting requests still make progress."""
    world = build_world(max_step_tokens=256)
    streams = [world.add([i], max_tokens=50, ignore_eos=True) for i in (1, 2)]
    world.step()
    first = world.add(range(200), max_tokens=1)
    assert world.chunks(world.schedule())[first.sequence_id] == 16 + 2 * 3 + 8
    second = world.add(range(1, 201), max_tokens=1)
    plan = world.schedule()
    assert world.chunks(plan)[first.sequence_id] == 16 + 2 * 3 + 2 * 8
    world.update(plan)
    for stream in streams:
        world.scheduler.finish(stream.sequence_id, FinishReason.ABORT)
    chunks = world.chunks(world.schedule())
    assert chunks[first.sequence_id] + chunks[second.sequence_id] == 256, "no sequence decodes"


def test_a_chunked_prefill_gives_the_same_result_as_a_whole_one(build_world: BuildWorld) -> None:
    completions = []
    for max_step_tokens in (3, 32, 33, 500):
        world = build_world(max_step_tokens=max_step_tokens)
        sequence = world.add(range(100), max_tokens=8)
        world.run()
        completions.append(sequence.token_ids)
    assert all(completion == completions[0] for completion in completions)


def test_earlier_prefills_go_first_and_new_sequences_last(build_world: BuildWorld) -> None:
    world = build_world(max_step_tokens=50)
    first, second, third = (world.add(range(i, i + 70), max_tokens=2) for i in range(3))
    assert world.chunks(world.schedule()) == {first.sequence_id: 50}
    world.update(world.schedule())
    assert world.chunks(world.schedule()) == {first.sequence_id: 20, second.sequence_id: 30}
    assert world.is_waiting(third)


def test_admission_is_first_come_first_served(build_world: BuildWorld) -> None:
    """A short request does not overtake one that does not fit yet."""
    world = build_world(num_blocks=8)
    world.add(range(200), max_tokens=2)
    long = world.add(range(1, 101), max_tokens=2)
    short = world.add([1], max_tokens=2)
    world.step()
    assert world.is_waiting(long)
    assert world.is_waiting(short)
    assert world.num_waiting == 2
    world.run()


def test_a_lower_priority_is_admitted_first_and_preempts_nothing(build_world: BuildWorld) -> None:
    """It goes before waiting sequences, not before running ones."""
    world = build_world(max_num_sequences=1)
    running = world.add([1], max_tokens=9, ignore_eos=True, priority=5)
    world.step()
    waiting = [world.add([9], max_tokens=2, ignore_eos=True, priority=priority) for priority in (5, 0, 5, -1, 0)]
    order: list[Sequence] = []
    while world.scheduler.has_work:
        world.step()
        order += [s for s in waiting if not world.is_waiting(s) and s not in order]
        assert order == [] or running.finish_reason is FinishReason.LENGTH
    assert order == [waiting[index] for index in (3, 1, 4, 0, 2)]
    assert world.num_preempted == 0


def test_prefills_go_by_priority(build_world: BuildWorld) -> None:
    """Tokens left by decodes go to the lowest priority's prompt first, even if another prefill has begun."""
    world = build_world(max_step_tokens=50)
    early = world.add(range(120), max_tokens=2, priority=1)
    world.step()
    urgent = world.add(range(1, 71), max_tokens=2)
    world.step()
    assert (early.num_computed_tokens, urgent.num_computed_tokens) == (100, 0), "the running prefill fills the step"
    assert world.chunks(world.schedule()) == {early.sequence_id: 20, urgent.sequence_id: 30}
    world.run()


def test_no_more_rows_than_sequences_allowed(build_world: BuildWorld) -> None:
    world = build_world(max_num_sequences=3)
    for i in range(5):
        world.add([i + 1], max_tokens=3, ignore_eos=True)
    assert len(world.schedule().rows) == 3
    assert (world.num_running, world.num_waiting) == (3, 2)
    world.run()


def test_a_budget_smaller_than_the_rows_stalls_no_sequence(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """With two tokens per step there are two rows, and every running sequence advances in every step."""
    world = build_world(max_step_tokens=2, max_num_sequences=8)
    sequences = [world.add([i + 1, 5, 6], max_tokens=4) for i in range(5)]
    world.run()
    for sequence in sequences:
        assert_undisturbed(sequence)


def test_a_plan_without_an_update_has_no_effect(
    build_world: BuildWorld, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """A failed step can be planned again."""
    world = build_world()
    sequences = [world.add(range(i, i + 60), max_tokens=40) for i in range(3)]
    while world.scheduler.has_work:
        lost, plan = world.chunks(world.schedule()), world.schedule()
        assert world.chunks(plan) == lost
        world.update(plan)
    for sequence in sequences:
        assert_undisturbed(sequence)


# ---- the end of a sequence


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
    """With `max_tokens` 0, or no position left, the sequence ends after its prefill, with the whole prompt scored."""
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


def test_finishing_frees_blocks_at_once_and_only_once(build_world: BuildWorld) -> None:
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


def test_a_leaked_block_is_detected_when_the_last_sequence_ends(build_world: BuildWorld) -> None:
    """The check is automatic, because an idle engine computes no further step."""
    world = build_world()
    other, sequence = world.add([2], max_tokens=5), world.add([1], max_tokens=5)
    world.step()
    sequence.block_ids.pop()
    world.scheduler.finish(other.sequence_id, FinishReason.ABORT)
    with pytest.raises(AssertionError, match="1 blocks are held and 0 sequences in flight"):
        world.scheduler.finish(sequence.sequence_id, FinishReason.ABORT)
