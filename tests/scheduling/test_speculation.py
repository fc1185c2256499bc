"""Drafts: the sequences that get them, their number, and that they change no result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.core.plan import RowResult, StepPlan, StepResult
from distilgpt2_api.scheduling.sequence import Sequence
from distilgpt2_api.scheduling.speculation import MAX_DRAFTING_SEQUENCES, MAX_TOKENS

WorldBuilder = Callable[..., Any]
CIRCLE = [1, 2, 3] * 6
REPETITIVE = 100
"""A seed for text that often repeats itself."""
CIRCLING = 200
"""A seed for text that always repeats itself."""


def drafts_of(plan: StepPlan) -> dict[int, int]:
    return {row.sequence_id: len(row.draft_token_ids) for row in plan.rows if row.draft_token_ids}


def first_draft(world: Any, max_steps: int = 20) -> StepPlan:
    """Step until a plan has drafts."""
    for _ in range(max_steps):
        plan: StepPlan = world.schedule()
        if drafts_of(plan):
            return plan
        world.update(plan)
    pytest.fail("nothing was guessed")


@pytest.mark.parametrize("max_draft_tokens", [1, 4, 15])
@pytest.mark.parametrize("num_sequences", [1, 2, 4])
def test_the_same_tokens_in_fewer_steps(
    num_sequences: int,
    max_draft_tokens: int,
    build_world: WorldBuilder,
    assert_undisturbed: Callable[[Sequence], None],
) -> None:
    """Some drafts are accepted and some rejected, over several blocks, in sequences with common prefixes."""
    world, plain = build_world(max_draft_tokens=max_draft_tokens), build_world()
    for one in (world, plain):
        for index in range(num_sequences):
            one.add(CIRCLE * 3, seed=REPETITIVE + index, max_tokens=150, ignore_eos=True, temperature=0.0)
        one.run()

    for sequence in world.sequences.values():
        assert_undisturbed(sequence)
    assert 20 < world.num_accepted < world.num_drafted
    assert world.num_steps < plain.num_steps


@pytest.mark.parametrize("max_tokens", range(1, 40))
def test_a_sequence_ends_where_it_would_without_drafts(
    max_tokens: int, build_world: WorldBuilder, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """By length, by a stop token or at the model's last position, within the tokens of one step; not a token later."""
    world = build_world(max_draft_tokens=15)
    by_length = world.add(CIRCLE, seed=REPETITIVE, max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
    stopped = world.add(CIRCLE, seed=REPETITIVE + 1, max_tokens=max_tokens, stop_token_ids=(5, 17))
    at_the_end = world.add(
        CIRCLE, seed=REPETITIVE + 2, max_tokens=200, num_positions=len(CIRCLE) + max_tokens, ignore_eos=True
    )

    world.run()

    assert_undisturbed(by_length)
    assert_undisturbed(stopped)
    assert len(at_the_end.token_ids) == len(CIRCLE) + max_tokens
    assert at_the_end.finish_reason is FinishReason.LENGTH


def test_a_sequence_ended_between_two_tokens_gets_no_more(build_world: WorldBuilder) -> None:
    """As when a stop sequence is found."""
    world = build_world(max_draft_tokens=15)
    sequence = world.add(CIRCLE, seed=REPETITIVE, max_tokens=100, ignore_eos=True, temperature=0.0)
    while True:
        plan = first_draft(world)
        (update,) = world.scheduler.update(plan, world.compute(plan))
        if update.result.accepted:
            break
    num_tokens = len(sequence.token_ids)

    accepted = world.scheduler.apply_accepted_drafts(update)
    world.scheduler.finish(sequence.sequence_id, FinishReason.STOP)

    assert list(accepted) == []
    assert len(sequence.token_ids) == num_tokens
    world.scheduler.check_idle()


@pytest.mark.parametrize("num_sequences", range(1, MAX_DRAFTING_SEQUENCES + 1))
def test_drafts_are_shorter_with_more_sequences(num_sequences: int, build_world: WorldBuilder) -> None:
    world = build_world(max_draft_tokens=15)
    for _ in range(num_sequences):
        world.add(CIRCLE, seed=CIRCLING, max_tokens=200, ignore_eos=True, temperature=0.0)
    for _ in range(10):
        world.step()

    plan = world.schedule()

    assert [len(row.draft_token_ids) for row in plan.rows] == [MAX_TOKENS // num_sequences - 1] * num_sequences
    assert plan.num_tokens <= MAX_TOKENS


def test_many_sequences_get_no_drafts(build_world: WorldBuilder) -> None:
    world = build_world(max_draft_tokens=15)
    for index in range(MAX_DRAFTING_SEQUENCES + 1):
        world.add(CIRCLE, seed=REPETITIVE + index, max_tokens=100, ignore_eos=True, temperature=0.0)
    for _ in range(60):
        world.step()

    assert world.num_drafted == 0

    world.scheduler.finish(min(world.sequences), FinishReason.ABORT)
    assert drafts_of(first_draft(world))


def test_sampled_text_gets_drafts_only_alone(build_world: WorldBuilder) -> None:
    """Sampled text repeats itself less, and a rejected draft would slow down other sequences."""
    world = build_world(max_draft_tokens=15)
    world.add(CIRCLE, seed=CIRCLING, max_tokens=200, ignore_eos=True, temperature=1.0)
    assert drafts_of(first_draft(world))
    beside = world.add(CIRCLE, seed=CIRCLING, max_tokens=40, ignore_eos=True, temperature=0.0)
    world.step()
    while beside.finish_reason is None:
        plan = world.schedule()
        assert not drafts_of(plan)
        world.update(plan)

    assert drafts_of(first_draft(world))


def test_no_drafts_beside_a_prefill_or_while_a_sequence_waits(build_world: WorldBuilder) -> None:
    """The step is long anyway, or a waiting sequence needs it to end soon."""
    world = build_world(max_draft_tokens=15, max_num_sequences=1)
    world.add(CIRCLE, seed=REPETITIVE, max_tokens=200, ignore_eos=True, temperature=0.0)
    first_draft(world)
    waiting = world.add(range(32), max_tokens=1)
    for _ in range(30):
        world.step()
    assert world.is_waiting(waiting)
    assert world.num_drafted == 0

    world = build_world(max_draft_tokens=15, max_step_tokens=20)
    world.add(CIRCLE, seed=REPETITIVE, max_tokens=200, ignore_eos=True, temperature=0.0)
    first_draft(world)
    prefill = world.add(range(200), max_tokens=1)
    while prefill.num_computed_tokens < 199:
        plan = world.schedule()
        assert not drafts_of(plan)
        world.update(plan)


def test_batch_work_gets_drafts_only_alone(build_world: WorldBuilder) -> None:
    world = build_world(max_draft_tokens=15, max_batch_step_tokens=40)
    batch = world.add(CIRCLE, seed=REPETITIVE, max_tokens=230, ignore_eos=True, temperature=0.0, is_batch=True)
    assert drafts_of(first_draft(world)).keys() == {batch.sequence_id}
    world.add(CIRCLE, seed=REPETITIVE + 1, max_tokens=40, ignore_eos=True, temperature=0.0)
    while world.num_running or world.num_waiting:
        plan = world.schedule()
        assert not drafts_of(plan)
        world.update(plan)

    assert drafts_of(first_draft(world, max_steps=100)).keys() == {batch.sequence_id}


def test_drafts_stay_within_the_steps_tokens(build_world: WorldBuilder) -> None:
    world = build_world(max_draft_tokens=15, max_step_tokens=4)
    for _ in range(2):
        world.add(CIRCLE, seed=CIRCLING, max_tokens=100, ignore_eos=True, temperature=0.0)
    for _ in range(20):
        world.step()

    plan = world.schedule()

    assert (plan.num_tokens, plan.num_draft_tokens) == (4, 2)


def test_a_sequence_with_a_grammar_gets_no_drafts(build_world: WorldBuilder) -> None:
    world = build_world(max_draft_tokens=15)
    world.add(
        CIRCLE,
        seed=CIRCLING,
        max_tokens=60,
        temperature=0.0,
        grammar=Grammar(GrammarKind.REGEX, "a+"),
    )
    world.run()

    assert world.num_drafted == 0
    assert world.num_steps == 60


@pytest.mark.parametrize(("num_blocks", "num_drafting"), [(4, 0), (5, 1), (6, 2)])
def test_no_sequence_loses_blocks_to_a_draft(num_blocks: int, num_drafting: int, build_world: WorldBuilder) -> None:
    """Two sequences near the ends of their blocks still get the next one that they need."""
    world = build_world(max_draft_tokens=15, num_blocks=num_blocks, is_prefix_caching=False)
    for _ in range(2):
        world.add((CIRCLE * 2)[:29], seed=CIRCLING, max_tokens=30, ignore_eos=True, temperature=0.0)
    world.step()

    plan = world.schedule()

    assert len(drafts_of(plan)) == num_drafting
    assert sorted(len(row.block_ids) for row in plan.rows) == sorted([2] * num_drafting + [1] * (2 - num_drafting))
    world.run()
    assert world.num_preempted == 0


def test_no_sequence_waits_for_blocks_of_rejected_drafts(build_world: WorldBuilder) -> None:
    """A new sequence that fits without them is admitted at once, and none is preempted for it."""
    world = build_world(max_draft_tokens=15, num_blocks=6, is_prefix_caching=False)
    drafting = world.add((CIRCLE * 2)[:29], seed=0, max_tokens=60, ignore_eos=True, temperature=0.0)
    world.step()
    drafting.token_ids[-1] = CIRCLE[29 % 3]  # what it had drawn, had it gone on in circles
    plan = world.schedule()
    assert drafts_of(plan)
    assert len(plan.rows[0].block_ids) == 2
    world.scheduler.update(plan, StepResult(rows=[RowResult(token_id=5)]))
    newcomer = world.add(range(120), seed=1, max_tokens=2, ignore_eos=True)

    plan = world.scheduler.schedule()

    assert not world.is_waiting(newcomer)
    assert [len(row.block_ids) for row in plan.rows] == [1, 4]
    assert world.scheduler.take_stats(plan).num_preempted == 0
    world.scheduler.check_accounting()


def test_a_lost_step_leaks_no_block(build_world: WorldBuilder) -> None:
    """The next plan uses the same blocks for its drafts."""
    world = build_world(max_draft_tokens=15)
    world.add((CIRCLE * 2)[:29], seed=CIRCLING, max_tokens=100, ignore_eos=True, temperature=0.0)
    world.step()
    plan = world.schedule()
    assert [(len(row.draft_token_ids), len(row.block_ids)) for row in plan.rows] == [(3, 2)]
    block_ids = list(plan.rows[0].block_ids)

    again = world.schedule()

    assert drafts_of(again) == drafts_of(plan)
    assert again.rows[0].block_ids == block_ids
    world.scheduler.check_accounting()


def test_blocks_computed_with_rejected_drafts_are_cached(
    build_world: WorldBuilder, assert_undisturbed: Callable[[Sequence], None]
) -> None:
    """`World` records the content of each cache slot, and checks what a step reads."""
    world = build_world(max_draft_tokens=15)
    first = world.add(CIRCLE, seed=REPETITIVE, max_tokens=120, ignore_eos=True, temperature=0.0)
    world.run()
    assert 0 < world.num_accepted < world.num_drafted
    num_full = (len(first.token_ids) - 1) // BLOCK_SIZE * BLOCK_SIZE

    second = world.add(first.token_ids, seed=REPETITIVE, max_tokens=20, ignore_eos=True, temperature=0.0)
    world.run()

    assert second.num_cached_tokens == num_full
    assert_undisturbed(second)
