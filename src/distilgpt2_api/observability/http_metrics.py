"""What clients asked and got, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class HttpMetrics:
    """Labelled by route template, never by path: a path may be a prompt."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "distilgpt2_http_requests", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self._durations = Histogram(
            "distilgpt2_http_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ("route",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._disconnects = Counter(
            "distilgpt2_client_disconnects", "Requests whose client hung up before the end.", registry=registry
        )
        self._auth_failures = Counter(
            "distilgpt2_auth_failures", "Requests without a valid API key, where one is needed.", registry=registry
        )

    def observe(self, *, method: str, route: str, status: int, duration_s: float, is_disconnect: bool) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._durations.labels(route).observe(duration_s)
        if is_disconnect:
            self._disconnects.inc()

    def count_auth_failure(self) -> None:
        self._auth_failures.inc()
