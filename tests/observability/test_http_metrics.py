"""The metrics of HTTP requests, as Prometheus reads them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from distilgpt2_api.observability.http_metrics import HttpMetrics
from distilgpt2_api.observability.request_record import RequestRecord


def served(**fields: Any) -> RequestRecord:
    defaults: dict[str, Any] = {"request_id": "id-1", "method": "GET", "route": "/", "status": 200}
    return RequestRecord(**(defaults | fields))


def test_requests_are_counted_by_method_route_and_status() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for status, is_disconnect in ((200, False), (200, False), (499, True)):
        metrics.observe(served(route="/{prompt}", status=status, duration_s=0.5, is_disconnect=is_disconnect))
    labels = {"method": "GET", "route": "/{prompt}"}
    assert registry.get_sample_value("distilgpt2_http_requests_total", labels | {"status": "200"}) == 2
    assert registry.get_sample_value("distilgpt2_http_requests_total", labels | {"status": "499"}) == 1
    assert registry.get_sample_value("distilgpt2_client_disconnects_total") == 1
    assert registry.get_sample_value("distilgpt2_http_request_duration_seconds_sum", {"route": "/{prompt}"}) == 1.5


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_an_invented_method_creates_no_series(registry: CollectorRegistry) -> None:
    """Otherwise a few million requests would fill memory with labels."""
    metrics = HttpMetrics(registry)
    for method in ("BREW", "brew", "X" * 1000):
        metrics.observe(served(method=method, route="unmatched", status=405))
    labels = {"method": "OTHER", "route": "unmatched", "status": "405"}
    assert registry.get_sample_value("distilgpt2_http_requests_total", labels) == 3


def test_requests_in_flight_go_up_and_down(registry: CollectorRegistry) -> None:
    metrics = HttpMetrics(registry)
    metrics.begin()
    metrics.begin()
    metrics.observe(served())
    assert registry.get_sample_value("distilgpt2_http_requests_in_flight") == 1


def test_known_reasons_are_shown_from_the_start(registry: CollectorRegistry) -> None:
    """A counter that appears only with its first event hides that event from `rate`."""
    metrics = HttpMetrics(registry, refusal_codes=["overloaded"])
    metrics.observe(served(admitted_s=0.0, error_code="draining"))
    assert registry.get_sample_value("distilgpt2_aborts_total", {"reason": "drain"}) == 1
    assert registry.get_sample_value("distilgpt2_aborts_total", {"reason": "error"}) == 0
    assert registry.get_sample_value("distilgpt2_refusals_total", {"code": "overloaded"}) == 0
