"""The engine's metrics, as Prometheus reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from distilgpt2_api.core.events import ScheduleStats, StepStats
from distilgpt2_api.core.outputs import FinishReason, RequestTimings, SequenceDelta
from distilgpt2_api.observability.engine_metrics import EngineMetrics

STEP = StepStats(
    schedule=ScheduleStats(
        num_rows=3,
        num_tokens=40,
        num_draft_tokens=7,
        num_running=3,
        num_waiting=5,
        num_batch=6,
        num_preempted=1,
        num_prefix_queried_tokens=38,
        num_prefix_hit_tokens=32,
        kv_cache_usage=0.25,
    ),
    duration_s=0.01,
    num_sampled_tokens=3,
    num_accepted_tokens=4,
    num_itl_samples=2,
    num_same_step_tokens=0,
    inter_step_s=0.012,
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> EngineMetrics:
    return EngineMetrics(registry)


def finished(**options: Any) -> SequenceDelta:
    timings = RequestTimings(queue_s=0.01, prefill_s=0.09, decode_s=1.0)
    defaults: dict[str, Any] = {
        "finish_reason": FinishReason.STOP,
        "num_prompt_tokens": 7,
        "num_cached_tokens": 3,
        "num_completion_tokens": 11,
        "timings": timings,
    }
    return SequenceDelta(index=0, **(defaults | options))


def test_a_step_sets_gauges_and_adds_to_counters(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    metrics.on_step(STEP)
    metrics.on_step(STEP)
    values = {
        "running_sequences": 3,
        "waiting_sequences": 5,
        "batch_sequences": 6,
        "kv_cache_usage_ratio": 0.25,
        "preemptions_total": 2,
        "computed_tokens_total": 80,
        "draft_tokens_total": 14,
        "accepted_draft_tokens_total": 8,
        "step_duration_seconds_count": 2,
        "step_sequences_sum": 6,
        "step_tokens_sum": 80,
        "prefix_cache_queried_tokens_total": 76,
        "prefix_cache_hit_tokens_total": 64,
    }
    assert {name: registry.get_sample_value(f"distilgpt2_{name}") for name in values} == values


def test_each_token_after_a_sequences_first_has_an_inter_token_latency(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    """First tokens have none: theirs is the time to first token."""
    metrics.on_step(STEP)
    metrics.on_step(replace(STEP, num_itl_samples=0, inter_step_s=3.0))
    values = {"count": 2, "sum": pytest.approx(0.024)}
    name = "distilgpt2_inter_token_latency_seconds"
    assert {part: registry.get_sample_value(f"{name}_{part}") for part in values} == values
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.01"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.015"}) == 2


def test_tokens_of_one_step_have_one_latency(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    """The step's latency for the first, 0 for the others: their sum is the time that passed."""
    metrics.on_step(replace(STEP, num_itl_samples=5, num_same_step_tokens=3))
    name = "distilgpt2_inter_token_latency_seconds"
    assert registry.get_sample_value(f"{name}_count") == 5
    assert registry.get_sample_value(f"{name}_sum") == pytest.approx(2 * 0.012)
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.001"}) == 3


def test_gauges_are_zero_after_the_last_abort(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    metrics.on_step(STEP)
    metrics.show_idle()
    for name in ("running_sequences", "waiting_sequences", "kv_cache_usage_ratio"):
        assert registry.get_sample_value(f"distilgpt2_{name}") == 0


def test_a_sequences_end_is_counted_with_its_latencies(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    metrics.on_sequence_finished(finished(), is_batch=False)
    values = {
        "prompt_tokens_total": 7,
        "cached_prompt_tokens_total": 3,
        "completion_tokens_total": 11,
        "queue_time_seconds_sum": 0.01,
        "prefill_time_seconds_sum": 0.09,
        "decode_time_seconds_sum": 1.0,
        "time_to_first_token_seconds_sum": pytest.approx(0.1),
        "end_to_end_latency_seconds_sum": pytest.approx(1.1),
        "time_per_output_token_seconds_sum": pytest.approx(0.1),
    }
    assert {name: registry.get_sample_value(f"distilgpt2_{name}") for name in values} == values
    assert registry.get_sample_value("distilgpt2_sequences_total", {"finish_reason": "stop"}) == 1


def test_a_sequence_without_tokens_has_no_token_latencies(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    timings = RequestTimings(queue_s=1.0, prefill_s=None, decode_s=None)
    aborted = finished(finish_reason=FinishReason.ABORT, num_completion_tokens=0, timings=timings)
    metrics.on_sequence_finished(aborted, is_batch=False)
    for name in ("prefill_time", "decode_time", "time_to_first_token"):
        assert registry.get_sample_value(f"distilgpt2_{name}_seconds_count") == 0
    assert registry.get_sample_value("distilgpt2_time_per_output_token_seconds_count") == 0
    assert registry.get_sample_value("distilgpt2_sequences_total", {"finish_reason": "abort"}) == 1


def test_every_finish_reason_is_shown_from_the_start(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    """A counter that appears only with its first event hides that event from `rate`."""
    for reason in FinishReason:
        assert registry.get_sample_value("distilgpt2_sequences_total", {"finish_reason": reason.value}) == 0


def test_batch_work_has_no_latencies(metrics: EngineMetrics, registry: CollectorRegistry) -> None:
    """Its tokens are counted, its latencies are not observed."""
    metrics.on_sequence_finished(finished(), is_batch=True)
    assert registry.get_sample_value("distilgpt2_completion_tokens_total") == 11
    for name in ("queue_time", "time_to_first_token", "time_per_output_token", "end_to_end_latency"):
        assert registry.get_sample_value(f"distilgpt2_{name}_seconds_count") == 0
