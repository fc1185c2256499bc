"""Prometheus metrics of HTTP requests."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from distilgpt2_api.observability.request_record import ALL_ABORT_REASONS, RequestRecord

DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER = "OTHER"
"""Label of all other methods, of which clients could invent any number."""


class HttpMetrics:
    """Labelled by route template, never by path, which can be a prompt. Event loop only."""

    def __init__(self, registry: CollectorRegistry, *, refusal_codes: Iterable[str] = ()) -> None:
        """Counters with these labels start at 0: otherwise `rate` would miss the first event."""
        self._in_flight = Gauge("distilgpt2_http_requests_in_flight", "HTTP requests in flight.", registry=registry)
        self._requests = Counter(
            "distilgpt2_http_requests", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self._durations = Histogram(
            "distilgpt2_http_request_duration_seconds",
            "Time from a request's head to the last byte of its response in seconds.",
            ("route",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._disconnects = Counter(
            "distilgpt2_client_disconnects",
            "Requests whose client disconnected before the end of the response.",
            registry=registry,
        )
        self._auth_failures = Counter(
            "distilgpt2_auth_failures", "Requests without a valid API key that needed one.", registry=registry
        )
        self._aborts = Counter(
            "distilgpt2_aborts", "Admitted requests that did not finish, by reason.", ("reason",), registry=registry
        )
        self._refusals = Counter(
            "distilgpt2_refusals", "Requests refused with 429 or 503, by error code.", ("code",), registry=registry
        )
        for reason in ALL_ABORT_REASONS:
            self._aborts.labels(reason)
        for code in refusal_codes:
            self._refusals.labels(code)

    def begin(self) -> None:
        """Count a new request. `observe` counts its end."""
        self._in_flight.inc()

    def observe(self, record: RequestRecord, *, refusal_code: str | None = None) -> None:
        """Counts a complete request."""
        self._in_flight.dec()
        method = record.method if record.method in METHODS else OTHER
        self._requests.labels(method, record.route, str(record.status)).inc()
        self._durations.labels(record.route).observe(record.duration_s)
        if record.is_disconnect:
            self._disconnects.inc()
        if record.abort_reason is not None:
            self._aborts.labels(record.abort_reason).inc()
        if refusal_code is not None:
            self._refusals.labels(refusal_code).inc()

    def count_auth_failure(self) -> None:
        self._auth_failures.inc()
