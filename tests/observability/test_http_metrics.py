"""What clients asked and got, as Prometheus sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from distilgpt2_api.observability.http_metrics import HttpMetrics


def test_requests_are_counted_by_method_route_and_status() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for status, is_disconnect in ((200, False), (200, False), (499, True)):
        metrics.observe(method="GET", route="/{prompt}", status=status, duration_s=0.5, is_disconnect=is_disconnect)
    labels = {"method": "GET", "route": "/{prompt}"}
    assert registry.get_sample_value("distilgpt2_http_requests_total", labels | {"status": "200"}) == 2
    assert registry.get_sample_value("distilgpt2_http_requests_total", labels | {"status": "499"}) == 1
    assert registry.get_sample_value("distilgpt2_client_disconnects_total") == 1
    assert registry.get_sample_value("distilgpt2_http_request_duration_seconds_sum", {"route": "/{prompt}"}) == 1.5
