"""What the engine did, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from distilgpt2_api.core.events import SequenceFinished, StepStats
from distilgpt2_api.core.outputs import FinishReason

STEP_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
SEQUENCES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class EngineMetrics:
    """An EngineObserver. Called on the engine thread; Prometheus's own locks make it safe to scrape meanwhile."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"distilgpt2_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"distilgpt2_{name}", text, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"distilgpt2_{name}", text, buckets=buckets, registry=registry)

        self._running = gauge("running_sequences", "Sequences that the last step computed or could have computed.")
        self._waiting = gauge("waiting_sequences", "Sequences that wait for a place in a step.")
        self._kv_cache_usage = gauge("kv_cache_usage_ratio", "Blocks of the KV cache held by sequences, 0 to 1.")
        self._preemptions = counter("preemptions", "Sequences that lost their KV cache blocks to earlier ones.")
        self._step_duration = histogram("step_duration_seconds", "Duration of one engine step.", STEP_BUCKETS_S)
        self._step_sequences = histogram("step_sequences", "Sequences computed in one step.", SEQUENCES_BUCKETS)
        self._computed_tokens = counter("computed_tokens", "Tokens computed, prefill and decode.")
        finished = counter("sequences", "Sequences that ended, by finish reason.", "finish_reason")
        self._finished = {reason: finished.labels(reason.value) for reason in FinishReason}
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens of sequences that ended.")
        self._cached_tokens = counter("cached_prompt_tokens", "Of these, found in the prefix cache.")
        self._completion_tokens = counter("completion_tokens", "Tokens drawn by sequences that ended.")
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

    def on_step(self, stats: StepStats) -> None:
        self._running.set(stats.num_running)
        self._waiting.set(stats.num_waiting)
        self._kv_cache_usage.set(stats.kv_cache_usage)
        self._step_duration.observe(stats.duration_s)
        self._step_sequences.observe(stats.num_rows)
        self._computed_tokens.inc(stats.num_tokens)
        if stats.num_preempted:
            self._preemptions.inc(stats.num_preempted)

    def on_sequence_finished(self, finished: SequenceFinished) -> None:
        timings = finished.timings
        self._finished[finished.finish_reason].inc()
        self._prompt_tokens.inc(finished.num_prompt_tokens)
        self._cached_tokens.inc(finished.num_cached_tokens)
        self._completion_tokens.inc(finished.num_completion_tokens)
        self._queue.observe(timings.queue_s)
        self._latency.observe(timings.total_s)
        if timings.ttft_s is not None:
            self._ttft.observe(timings.ttft_s)
            if finished.num_completion_tokens > 1:
                self._per_token.observe((timings.total_s - timings.ttft_s) / (finished.num_completion_tokens - 1))

    def show_idle(self) -> None:
        """Nothing is in flight: after the last abort no step comes any more to say so."""
        self._running.set(0)
        self._waiting.set(0)
        self._kv_cache_usage.set(0)
