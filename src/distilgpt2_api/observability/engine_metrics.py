"""What the engine did, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distilgpt2_api.core.events import SequenceFinished, StepStats
from distilgpt2_api.core.outputs import FinishReason
from distilgpt2_api.observability.weighted_histogram import WeightedHistogram

STEP_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
SEQUENCES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS_BUCKETS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


class EngineMetrics(Collector):
    """An EngineObserver: the engine thread writes plain numbers, a scrape makes families of them. No locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> WeightedHistogram:
            return WeightedHistogram(f"distilgpt2_{name}", text, buckets)

        self._num_running = 0
        self._num_waiting = 0
        self._num_batch = 0
        self._kv_cache_usage = 0.0
        self._num_preemptions = 0
        self._num_computed_tokens = 0
        self._num_draft_tokens = 0
        self._num_accepted_tokens = 0
        self._num_prefix_queried_tokens = 0
        self._num_prefix_hit_tokens = 0
        self._num_finished = dict.fromkeys(FinishReason, 0)
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._step_duration = histogram("step_duration_seconds", "Duration of one engine step.", STEP_BUCKETS_S)
        self._step_sequences = histogram("step_sequences", "Sequences computed in one step.", SEQUENCES_BUCKETS)
        self._step_tokens = histogram("step_tokens", "Tokens computed in one step.", TOKENS_BUCKETS)
        self._inter_token = histogram(
            "inter_token_latency_seconds", "From a token to its sequence's next (ITL).", PER_TOKEN_BUCKETS_S
        )
        self._queue = histogram("queue_time_seconds", "From submission to the first step.", LATENCY_BUCKETS_S)
        self._ttft = histogram(
            "time_to_first_token_seconds", "From submission to the first token (TTFT).", LATENCY_BUCKETS_S
        )
        self._per_token = histogram(
            "time_per_output_token_seconds", "Mean time of a token after the first (TPOT).", PER_TOKEN_BUCKETS_S
        )
        self._latency = histogram(
            "end_to_end_latency_seconds", "From submission to a sequence's end.", LATENCY_BUCKETS_S
        )
        self._histograms = (
            self._step_duration,
            self._step_sequences,
            self._step_tokens,
            self._inter_token,
            self._queue,
            self._ttft,
            self._per_token,
            self._latency,
        )
        registry.register(self)

    def on_step(self, stats: StepStats) -> None:
        self._num_running = stats.num_running
        self._num_waiting = stats.num_waiting
        self._num_batch = stats.num_batch
        self._kv_cache_usage = stats.kv_cache_usage
        self._num_preemptions += stats.num_preempted
        self._num_computed_tokens += stats.num_tokens
        self._num_draft_tokens += stats.num_draft_tokens
        self._num_accepted_tokens += stats.num_accepted_tokens
        self._num_prefix_queried_tokens += stats.num_prefix_queried_tokens
        self._num_prefix_hit_tokens += stats.num_prefix_hit_tokens
        self._step_duration.observe(stats.duration_s)
        self._step_sequences.observe(stats.num_rows)
        self._step_tokens.observe(stats.num_tokens)
        if stats.num_later_tokens:
            self._inter_token.observe(stats.gap_s, stats.num_later_tokens - stats.num_gapless_tokens)
        if stats.num_gapless_tokens:
            self._inter_token.observe(0.0, stats.num_gapless_tokens)

    def on_sequence_finished(self, finished: SequenceFinished) -> None:
        self._num_finished[finished.finish_reason] += 1
        self._num_prompt_tokens += finished.num_prompt_tokens
        self._num_cached_tokens += finished.num_cached_tokens
        self._num_completion_tokens += finished.num_completion_tokens
        if finished.is_batch:  # nobody felt it
            return
        timings = finished.timings
        self._queue.observe(timings.queue_s)
        self._latency.observe(timings.total_s)
        if timings.ttft_s is not None:
            self._ttft.observe(timings.ttft_s)
            if finished.num_completion_tokens > 1:
                self._per_token.observe((timings.total_s - timings.ttft_s) / (finished.num_completion_tokens - 1))

    def show_idle(self) -> None:
        """Nothing is in flight: after the last abort no step comes any more to say so."""
        self._num_running = 0
        self._num_waiting = 0
        self._num_batch = 0
        self._kv_cache_usage = 0.0

    def collect(self) -> Iterator[Metric]:
        for name, text, level in (
            (
                "running_sequences",
                "Sequences that the last step had, computed or not, but batch work.",
                self._num_running,
            ),
            ("waiting_sequences", "Sequences that wait for a place in a step, but batch work.", self._num_waiting),
            ("batch_sequences", "Sequences of batch work, waiting and running.", self._num_batch),
            ("kv_cache_usage_ratio", "Blocks of the KV cache held by sequences, 0 to 1.", self._kv_cache_usage),
        ):
            yield GaugeMetricFamily(f"distilgpt2_{name}", text, value=level)
        for name, text, count in (
            ("preemptions", "Sequences that lost their KV cache blocks to earlier ones.", self._num_preemptions),
            ("computed_tokens", "Tokens computed: prefill, decode and drafts.", self._num_computed_tokens),
            ("draft_tokens", "Tokens guessed and computed on the chance that they come.", self._num_draft_tokens),
            ("accepted_draft_tokens", "Of these, the ones that came.", self._num_accepted_tokens),
            (
                "prefix_cache_queried_tokens",
                "Prompt tokens looked up in the prefix cache.",
                self._num_prefix_queried_tokens,
            ),
            ("prefix_cache_hit_tokens", "Prompt tokens that the prefix cache had.", self._num_prefix_hit_tokens),
            ("prompt_tokens", "Prompt tokens of sequences that ended.", self._num_prompt_tokens),
            (
                "cached_prompt_tokens",
                "Prompt tokens of sequences that ended, from the prefix cache.",
                self._num_cached_tokens,
            ),
            ("completion_tokens", "Tokens drawn by sequences that ended.", self._num_completion_tokens),
        ):
            yield CounterMetricFamily(f"distilgpt2_{name}", text, value=count)
        finished = CounterMetricFamily(
            "distilgpt2_sequences", "Sequences that ended, by finish reason.", labels=["finish_reason"]
        )
        for reason, count in self._num_finished.items():
            finished.add_metric([reason.value], count)
        yield finished
        for histogram in self._histograms:
            yield histogram.family()
