"""Prometheus metrics of the engine, as a table for each kind of event. To add a metric, add a row."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distilgpt2_api.core.events import ScheduleStats, StepStats
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.observability.accumulators import Accumulator, Counter, LabelledCounter, WeightedHistogram

Metrics = Sequence[tuple[str, str, Callable[[str, str], Accumulator], str]]
"""For each metric its name without the prefix `distilgpt2_`, its help, its kind, and the event's attribute that it
shows."""

STEP_S = partial(
    WeightedHistogram, bounds=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
)
LATENCY_S = partial(
    WeightedHistogram, bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
)
PER_TOKEN_S = partial(
    WeightedHistogram, bounds=(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
)
SEQUENCES = partial(WeightedHistogram, bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
TOKENS = partial(WeightedHistogram, bounds=(1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536))
REASONS = partial(LabelledCounter, label="finish_reason", values=tuple(FinishReason))

GAUGES = (
    ("running_sequences", "Running sequences, except batch work.", "num_running"),
    ("waiting_sequences", "Sequences waiting for a batch slot, except batch work.", "num_waiting"),
    ("batch_sequences", "Sequences of batch work, waiting and running.", "num_batch"),
    ("kv_cache_usage_ratio", "Share of KV cache blocks held by sequences, 0 to 1.", "kv_cache_usage"),
)
"""Each with the attribute of the last step's `ScheduleStats` that it shows."""
SCHEDULE_METRICS: Metrics = (
    ("preemptions", "Preemptions: running sequences that lost their KV cache blocks.", Counter, "num_preempted"),
    (
        "prefix_cache_queried_tokens",
        "Prompt tokens looked up in the prefix cache.",
        Counter,
        "num_prefix_queried_tokens",
    ),
    ("prefix_cache_hit_tokens", "Prompt tokens found in the prefix cache.", Counter, "num_prefix_hit_tokens"),
    ("step_sequences", "Sequences computed in an engine step.", SEQUENCES, "num_rows"),
    ("step_tokens", "Tokens computed in an engine step.", TOKENS, "num_tokens"),
    ("computed_tokens", "Tokens computed: prefill, decode and drafts.", Counter, "num_tokens"),
    ("draft_tokens", "Draft tokens computed.", Counter, "num_draft_tokens"),
)
STEP_METRICS: Metrics = (
    ("step_duration_seconds", "Duration of an engine step in seconds.", STEP_S, "duration_s"),
    ("accepted_draft_tokens", "Draft tokens accepted.", Counter, "num_accepted_tokens"),
)
SEQUENCE_METRICS: Metrics = (
    ("prompt_tokens", "Prompt tokens of finished sequences.", Counter, "num_prompt_tokens"),
    (
        "cached_prompt_tokens",
        "Prompt tokens of finished sequences that came from the prefix cache.",
        Counter,
        "num_cached_tokens",
    ),
    ("completion_tokens", "Completion tokens of finished sequences.", Counter, "num_completion_tokens"),
    ("sequences", "Finished sequences, by finish reason.", REASONS, "finish_reason"),
)
LATENCY_METRICS: Metrics = (
    (
        "queue_time_seconds",
        "Time from submission to a sequence's first step in seconds.",
        LATENCY_S,
        "timings.queue_s",
    ),
    (
        "prefill_time_seconds",
        "Time from a sequence's first step to its first token in seconds.",
        LATENCY_S,
        "timings.prefill_s",
    ),
    (
        "decode_time_seconds",
        "Time from a sequence's first token to its end in seconds.",
        LATENCY_S,
        "timings.decode_s",
    ),
    (
        "time_to_first_token_seconds",
        "Time from submission to a sequence's first token (TTFT) in seconds.",
        LATENCY_S,
        "timings.ttft_s",
    ),
    (
        "time_per_output_token_seconds",
        "Mean time per output token after the first (TPOT) in seconds.",
        PER_TOKEN_S,
        "tpot_s",
    ),
    (
        "end_to_end_latency_seconds",
        "Time from submission to a sequence's end in seconds.",
        LATENCY_S,
        "timings.total_s",
    ),
)


class EngineMetrics(Collector):
    """An EngineObserver. The engine thread writes plain numbers, and a scrape reads them: no locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last: ScheduleStats | None = None
        """The last step's; None while nothing runs."""
        self._of_schedules = MetricGroup(SCHEDULE_METRICS)
        self._of_steps = MetricGroup(STEP_METRICS)
        self._of_sequences = MetricGroup(SEQUENCE_METRICS)
        self._of_latencies = MetricGroup(LATENCY_METRICS)
        self._inter_token_s = PER_TOKEN_S(
            "distilgpt2_inter_token_latency_seconds",
            "Time from a token to the next token of its sequence (ITL) in seconds.",
        )
        registry.register(self)

    def on_step(self, stats: StepStats) -> None:
        self._last = stats.schedule
        self._of_schedules.update(stats.schedule)
        self._of_steps.update(stats)
        self._inter_token_s.update(stats.inter_step_s, stats.num_itl_samples - stats.num_same_step_tokens)
        if stats.num_same_step_tokens:
            self._inter_token_s.update(0.0, stats.num_same_step_tokens)

    def on_sequence_finished(self, last: SequenceDelta, *, is_batch: bool) -> None:
        self._of_sequences.update(last)
        if not is_batch:  # no client waits for batch work
            self._of_latencies.update(last)

    def show_idle(self) -> None:
        """Set the gauges to 0. No step follows the last abort, so the engine does not report that nothing runs."""
        self._last = None

    def collect(self) -> Iterator[Metric]:
        last = self._last
        for name, text, attribute in GAUGES:
            value = 0.0 if last is None else getattr(last, attribute)
            yield GaugeMetricFamily(f"distilgpt2_{name}", text, value=value)
        groups = (self._of_schedules, self._of_steps, self._of_sequences, self._of_latencies)
        for accumulator in chain([self._inter_token_s], *(group.accumulators for group in groups)):
            yield accumulator.family()


class MetricGroup:
    """The metrics of one kind of event."""

    def __init__(self, metrics: Metrics) -> None:
        self.accumulators = [kind(f"distilgpt2_{name}", text) for name, text, kind, _ in metrics]
        self._updates = [accumulator.update for accumulator in self.accumulators]
        self._read_values = attrgetter(*(attribute for *_, attribute in metrics))

    def update(self, event: object) -> None:
        for update, value in zip(self._updates, self._read_values(event), strict=True):
            update(value)
