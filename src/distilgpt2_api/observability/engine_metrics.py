"""Prometheus metrics of the engine, as a table for each kind of event. To add a metric, add a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from distilgpt2_api.core.events import SequenceFinished, StepStats
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.observability.accumulators import Accumulator, Counter, Gauge, LabelledCounter, WeightedHistogram

Event = TypeVar("Event")
Accumulators = Sequence[tuple[Accumulator, Callable[[Event], Any]]]
"""Each with the function that computes its value from an event."""

STEP_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class Metric(Generic[Event]):
    """One metric of the page, without the prefix `distilgpt2_`."""

    name: str
    help: str
    kind: Callable[[str, str], Accumulator]
    value: Callable[[Event], Any]
    """The metric's value from an event, as `kind` takes it."""


def _histogram(bounds: Sequence[float]) -> Callable[[str, str], Accumulator]:
    return partial(WeightedHistogram, bounds=bounds)


def _once(value: float | None) -> Sequence[tuple[float, int]]:
    return () if value is None else ((value, 1),)


def _inter_token_s(step: StepStats) -> Sequence[tuple[float, int]]:
    return (step.inter_step_s, step.num_itl_samples - step.num_same_step_tokens), (0.0, step.num_same_step_tokens)


def _tpot_s(finished: SequenceFinished) -> float | None:
    timings, num_later_tokens = finished.timings, finished.num_completion_tokens - 1
    if timings.ttft_s is None or num_later_tokens < 1:
        return None
    return (timings.total_s - timings.ttft_s) / num_later_tokens


STEP_METRICS: Sequence[Metric[StepStats]] = (
    Metric("running_sequences", "Running sequences, except batch work.", Gauge, lambda s: s.schedule.num_running),
    Metric(
        "waiting_sequences",
        "Sequences waiting for a batch slot, except batch work.",
        Gauge,
        lambda s: s.schedule.num_waiting,
    ),
    Metric("batch_sequences", "Sequences of batch work, waiting and running.", Gauge, lambda s: s.schedule.num_batch),
    Metric(
        "kv_cache_usage_ratio",
        "Share of KV cache blocks held by sequences, 0 to 1.",
        Gauge,
        lambda s: s.schedule.kv_cache_usage,
    ),
    Metric(
        "preemptions",
        "Preemptions: running sequences that lost their KV cache blocks.",
        Counter,
        lambda s: s.schedule.num_preempted,
    ),
    Metric(
        "prefix_cache_queried_tokens",
        "Prompt tokens looked up in the prefix cache.",
        Counter,
        lambda s: s.schedule.num_prefix_queried_tokens,
    ),
    Metric(
        "prefix_cache_hit_tokens",
        "Prompt tokens found in the prefix cache.",
        Counter,
        lambda s: s.schedule.num_prefix_hit_tokens,
    ),
    Metric(
        "step_duration_seconds",
        "Duration of an engine step in seconds.",
        _histogram(STEP_S),
        lambda s: _once(s.duration_s),
    ),
    Metric(
        "step_sequences",
        "Sequences computed in an engine step.",
        _histogram(SEQUENCES),
        lambda s: _once(s.schedule.num_rows),
    ),
    Metric(
        "step_tokens",
        "Tokens computed in an engine step.",
        _histogram(TOKENS),
        lambda s: _once(s.schedule.num_tokens),
    ),
    Metric("computed_tokens", "Tokens computed: prefill, decode and drafts.", Counter, lambda s: s.schedule.num_tokens),
    Metric("draft_tokens", "Draft tokens computed.", Counter, lambda s: s.schedule.num_draft_tokens),
    Metric("accepted_draft_tokens", "Draft tokens accepted.", Counter, lambda s: s.num_accepted_tokens),
    Metric(
        "inter_token_latency_seconds",
        "Time from a token to the next token of its sequence (ITL) in seconds.",
        _histogram(PER_TOKEN_S),
        _inter_token_s,
    ),
)
SEQUENCE_METRICS: Sequence[Metric[SequenceFinished]] = (
    Metric("prompt_tokens", "Prompt tokens of finished sequences.", Counter, lambda f: f.num_prompt_tokens),
    Metric(
        "cached_prompt_tokens",
        "Prompt tokens of finished sequences that came from the prefix cache.",
        Counter,
        lambda f: f.num_cached_tokens,
    ),
    Metric("completion_tokens", "Completion tokens of finished sequences.", Counter, lambda f: f.num_completion_tokens),
    Metric(
        "sequences",
        "Finished sequences, by finish reason.",
        partial(LabelledCounter, label="finish_reason", values=tuple(FinishReason)),
        lambda f: f.finish_reason,
    ),
)
LATENCY_METRICS: Sequence[Metric[SequenceFinished]] = (
    Metric(
        "queue_time_seconds",
        "Time from submission to a sequence's first step in seconds.",
        _histogram(LATENCY_S),
        lambda f: _once(f.timings.queue_s),
    ),
    Metric(
        "time_to_first_token_seconds",
        "Time from submission to a sequence's first token (TTFT) in seconds.",
        _histogram(LATENCY_S),
        lambda f: _once(f.timings.ttft_s),
    ),
    Metric(
        "time_per_output_token_seconds",
        "Mean time per output token after the first (TPOT) in seconds.",
        _histogram(PER_TOKEN_S),
        lambda f: _once(_tpot_s(f)),
    ),
    Metric(
        "end_to_end_latency_seconds",
        "Time from submission to a sequence's end in seconds.",
        _histogram(LATENCY_S),
        lambda f: _once(f.timings.total_s),
    ),
)


class EngineMetrics(Collector):
    """An EngineObserver. The engine thread writes plain numbers, and a scrape reads them: no locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_steps = _accumulators(STEP_METRICS)
        self._of_sequences = _accumulators(SEQUENCE_METRICS)
        self._of_latencies = _accumulators(LATENCY_METRICS)
        registry.register(self)

    def on_step(self, stats: StepStats) -> None:
        _update(self._of_steps, stats)

    def on_sequence_finished(self, finished: SequenceFinished) -> None:
        _update(self._of_sequences, finished)
        if not finished.is_batch:  # no client waits for batch work
            _update(self._of_latencies, finished)

    def show_idle(self) -> None:
        """Set the gauges to 0. No step follows the last abort, so the engine does not report that nothing runs."""
        for accumulator, _ in self._of_steps:
            if isinstance(accumulator, Gauge):
                accumulator.update(0.0)

    def collect(self) -> Iterator[MetricFamily]:
        for accumulator, _ in (*self._of_steps, *self._of_sequences, *self._of_latencies):
            yield accumulator.family()


def _accumulators(metrics: Sequence[Metric[Event]]) -> Accumulators[Event]:
    return [(metric.kind(f"distilgpt2_{metric.name}", metric.help), metric.value) for metric in metrics]


def _update(accumulators: Accumulators[Event], event: Event) -> None:
    for accumulator, value in accumulators:
        accumulator.update(value(event))
