"""Prometheus metrics of batches."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter


class BatchMetrics:
    """Counts the work on batches in this process. Event loop only."""

    def __init__(self, registry: CollectorRegistry, *, statuses: Iterable[str]) -> None:
        """`statuses`: the final statuses of a batch."""
        self._lines = Counter(
            "distilgpt2_batch_lines", "Batch lines finished, by result.", ("result",), registry=registry
        )
        self._batches = Counter("distilgpt2_batches", "Batches finished, by status.", ("status",), registry=registry)
        for result in ("completed", "failed"):
            self._lines.labels(result)
        for status in statuses:
            self._batches.labels(str(status))

    def on_lines(self, *, num_completed: int, num_failed: int) -> None:
        self._lines.labels("completed").inc(num_completed)
        self._lines.labels("failed").inc(num_failed)

    def on_batch_ended(self, status: str) -> None:
        self._batches.labels(str(status)).inc()
