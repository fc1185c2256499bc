"""A node curve has the durations of the engine's steps, here on a clock that assigns each step its duration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.scripted_runner import ENGINE_CONFIG

from distilgpt2_api.capacity.node_curve import NodeCurve
from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.plan import StepPlan
from distilgpt2_api.engine.node_measurement import NodeMeasurement

CONFIG = replace(ENGINE_CONFIG, precision=Precision.INT8, max_num_sequences=6)


class StepClock:
    """A decode step takes 10 ms and 1 ms per row; a prompt token 0.1 ms."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def run(self, plan: StepPlan) -> None:
        num_prefilled = sum(row.num_new_tokens for row in plan.rows if row.num_computed_tokens < row.num_prompt_tokens)
        num_decoding = sum(row.num_computed_tokens >= row.num_prompt_tokens for row in plan.rows)
        self.now_s += 0.0001 * num_prefilled + (0.010 + 0.001 * num_decoding if num_decoding else 0.0)


Measure = Callable[..., tuple[NodeMeasurement, NodeCurve, list[int]]]


@pytest.fixture
def measure(build_engine: Any, build_runner: Any) -> Measure:
    def run(
        num_prompt_tokens: int = 40, num_completion_tokens: int = 60, num_blocks: int = 64
    ) -> tuple[NodeMeasurement, NodeCurve, list[int]]:
        clock = StepClock()
        engine = build_engine(
            build_runner(script=b"x" * 300, on_run=clock.run), num_blocks=num_blocks, max_num_sequences=6
        )
        measurement = NodeMeasurement(
            engine=engine,
            config=CONFIG,
            num_prompt_tokens=num_prompt_tokens,
            num_completion_tokens=num_completion_tokens,
            clock=clock,
        )
        parts: list[int] = []
        curve = measurement.run(model="fake", measured_on="a fake", on_measured=parts.append)
        assert not engine.has_work
        return measurement, curve, parts

    return run


@pytest.mark.reported(
    "reading the code of another measurement: attention over blocks that nothing had written was timed"
)
def test_each_timed_sequence_reads_computed_blocks_of_its_own(build_engine: Any, build_runner: Any) -> None:
    """Memory that is unwritten or shared stays in the processor's cache, and steps would look shorter."""
    plans: list[StepPlan] = []
    engine = build_engine(build_runner(script=b"x" * 300, on_run=plans.append), num_blocks=64, max_num_sequences=6)
    measurement = NodeMeasurement(engine=engine, config=CONFIG, num_prompt_tokens=120, num_completion_tokens=60)

    measurement.run(model="fake", measured_on="a fake", on_measured=lambda num_parts: None)

    computed: set[tuple[int, int]] = set()
    num_decode_steps = 0
    for plan in plans:
        decoding = [row for row in plan.rows if row.num_computed_tokens >= row.num_prompt_tokens]
        num_decode_steps += bool(decoding)
        read = [
            (row.block_ids[position // BLOCK_SIZE], position % BLOCK_SIZE)
            for row in decoding
            for position in range(row.num_computed_tokens)
        ]
        assert len(read) == len(set(read)), "no two sequences share a block"
        assert computed.issuperset(read)
        for row in plan.rows:
            for position in range(row.num_computed_tokens, row.num_computed_tokens + row.num_new_tokens):
                computed.add((row.block_ids[position // BLOCK_SIZE], position % BLOCK_SIZE))
    assert num_decode_steps >= 4 * 20


def test_steps_are_timed_at_powers_of_two_and_at_the_maximum(measure: Measure) -> None:
    _, curve, _ = measure()
    assert [step.num_sequences for step in curve.decode_steps] == [1, 2, 4, 6]
    assert [step.step_s for step in curve.decode_steps] == pytest.approx([0.011, 0.012, 0.014, 0.016])


def test_prompts_are_timed_without_decodes(measure: Measure) -> None:
    _, curve, _ = measure()
    assert curve.prefill_tokens_per_s == pytest.approx(10_000)


def test_a_curve_names_what_was_measured(measure: Measure) -> None:
    _, curve, _ = measure()
    assert (curve.model, curve.measured_on, curve.precision) == ("fake", "a fake", "int8")
    assert (curve.num_positions, curve.kv_cache_tokens, curve.max_step_tokens) == (256, 64 * 32, 64)


def test_progress_is_reported_for_each_part(measure: Measure) -> None:
    measurement, _, parts = measure()
    assert parts == [1] * measurement.num_parts


def test_only_counts_that_fit_the_kv_cache_are_measured(measure: Measure) -> None:
    """65 tokens of context and 25 more take three blocks per sequence."""
    _, curve, _ = measure(num_blocks=8)
    assert [step.num_sequences for step in curve.decode_steps] == [1, 2]


def test_lengths_over_the_models_context_are_measured_at_its_end(measure: Measure) -> None:
    _, curve, _ = measure(num_prompt_tokens=5000, num_completion_tokens=5000)
    assert curve.decode_steps[-1].step_s == pytest.approx(0.016)


def test_a_model_too_short_for_the_timed_steps_is_refused(build_engine: Any, build_runner: Any) -> None:
    import dataclasses

    runner = build_runner()
    runner.config = dataclasses.replace(runner.config, num_positions=25)
    with pytest.raises(InvalidRequestError, match="a model with 25 positions can't be measured: it needs at least 26"):
        NodeMeasurement(engine=build_engine(runner), config=CONFIG, num_prompt_tokens=1, num_completion_tokens=1)
