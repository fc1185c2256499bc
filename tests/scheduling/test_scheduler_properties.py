"""For events in any order: the accounting is right, every sequence finishes, and none affects another's tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.scheduling.scheduler import QUIET_STEPS
from distilgpt2_api.scheduling.sequence import Sequence

# Few distinct prefixes, so that prompts share blocks. With period 32, all blocks of a prompt are equal. Lengths are
# near multiples of a block.
PROMPTS = st.builds(
    lambda first, period, length: [(first + i) % period for i in range(length)],
    st.integers(0, 2),
    st.sampled_from([32, 40]),
    st.one_of(st.integers(1, 100), st.sampled_from([31, 32, 33, 63, 64, 65, 96])),
)
LIMITS = st.fixed_dictionaries(
    {
        "num_blocks": st.integers(5, 16),
        "max_num_sequences": st.integers(1, 6),
        "max_step_tokens": st.sampled_from([1, 2, 7, 32, 50, 64, 200]),
        "is_prefix_caching": st.booleans(),
        "num_eager_blocks": st.sampled_from([None, 0, 4]),
        "max_batch_step_tokens": st.sampled_from([0, 1, 3, 40]),
        "max_draft_tokens": st.sampled_from([0, 2, 15]),
    }
)
PARAMS = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(0, 60),
        "ignore_eos": st.booleans(),
        "temperature": st.sampled_from([0.0, 0.0, 1.0]),
        "num_prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "first_scored_token": st.sampled_from([1, 1, 2, 33, 50]),
        "stop_token_ids": st.sampled_from([(), (), (3,)]),
    }
)
SEEDS = st.sampled_from([0, 1, 100, 101])
"""Seeds of 100 and more give text that repeats itself."""
CALLERS = st.sampled_from(["", "", "", "other", "third"])
PRIORITIES = st.sampled_from([0, 0, 0, -1, 1, 7])
WHOSE = st.fixed_dictionaries({"priority": PRIORITIES, "caller": CALLERS, "is_batch": st.booleans()})


def check_finished(world: Any, sequence: Sequence, assert_undisturbed: Callable[[Sequence], None]) -> None:
    assert_undisturbed(sequence)
    if sequence.params.num_prompt_logprobs is not None:
        scored = [score.token_id for score in world.scores[sequence.sequence_id]]
        assert scored == sequence.token_ids[sequence.params.first_scored_token : sequence.num_prompt_tokens]


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, steps, aborts (also during a step), loses steps, and preempts for lack of blocks, in any order."""

    build_world: Callable[..., Any]
    assert_undisturbed: Callable[[Sequence], None]

    @initialize(limits=LIMITS)
    def build(self, limits: dict[str, Any]) -> None:
        self.world = self.build_world(**limits)
        self.aborted: set[int] = set()

    def _some(self, index: int) -> Sequence | None:
        sequences = list(self.world.sequences.values())
        return sequences[index % len(sequences)] if sequences else None

    def _abort(self, index: int) -> None:
        sequence = self._some(index)
        if sequence and self.world.scheduler.finish(sequence.sequence_id, FinishReason.ABORT):
            self.aborted.add(sequence.sequence_id)

    @rule(
        prompt=PROMPTS,
        seed=SEEDS,
        params=PARAMS,
        num_sequences=st.sampled_from([1, 1, 2, 4]),
        whose=WHOSE,
    )
    def add(
        self, prompt: list[int], seed: int, params: dict[str, Any], num_sequences: int, whose: dict[str, Any]
    ) -> None:
        leader = self.world.add(prompt, seed=seed, **whose, **params)
        for index in range(1, num_sequences):
            self.world.add(prompt, seed=seed + index, leader=leader, **whose, **params)

    @rule(num_steps=st.integers(1, 25))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            if self.world.scheduler.has_work:
                self.world.step()

    @rule(index=st.integers(0, 99))
    def abort(self, index: int) -> None:
        self._abort(index)

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule(index=st.integers(0, 99))
    def abort_while_a_step_runs(self, index: int) -> None:
        plan = self.world.schedule()
        self._abort(index)
        self.world.update(plan)

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule()
    def lose_a_step(self) -> None:
        self.world.schedule()

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule(num_taken=st.integers(0, 3))
    def take_in_less_than_was_gained(self, num_taken: int) -> None:
        """Apply only some accepted drafts: a sequence either ends there, or samples the remaining tokens again."""
        self.world.update(self.world.schedule(), max_accepted=num_taken)

    @invariant()
    def accounting_is_exact(self) -> None:
        self.world.scheduler.check_accounting()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.run(max_steps=20_000)
        for sequence in self.world.sequences.values():
            if sequence.sequence_id not in self.aborted:
                check_finished(self.world, sequence, self.assert_undisturbed)


def test_any_interleaving_keeps_the_accounting_and_the_results(
    build_world: Callable[..., Any],
    assert_undisturbed: Callable[[Sequence], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SchedulerMachine, "build_world", staticmethod(build_world), raising=False)
    monkeypatch.setattr(SchedulerMachine, "assert_undisturbed", staticmethod(assert_undisturbed), raising=False)
    run_state_machine_as_test(
        SchedulerMachine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None, derandomize=True)
    )


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=LIMITS, requests=st.lists(st.tuples(PROMPTS, SEEDS, WHOSE, PARAMS), min_size=1, max_size=10))
def test_every_sequence_finishes_in_bounded_time(
    build_world: Callable[..., Any],
    assert_undisturbed: Callable[[Sequence], None],
    limits: dict[str, Any],
    requests: list[tuple[list[int], int, dict[str, Any], dict[str, Any]]],
) -> None:
    """All finish in no more steps than if each ran alone, in succession: none starves, and each preemption is useful.

    This holds for any priorities and callers once no lower priority arrives, and for batch work except for the steps
    that it waits after other work.
    """
    world = build_world(**limits)
    sequences = [world.add(prompt, seed=seed, **whose, **params) for prompt, seed, whose, params in requests]
    world.run(
        max_steps=sum(
            -(-len(sequence.token_ids) // limits["max_step_tokens"]) + sequence.params.max_tokens + 1
            for sequence in sequences
        )
        + QUIET_STEPS
    )
    for sequence in sequences:
        check_finished(world, sequence, assert_undisturbed)
