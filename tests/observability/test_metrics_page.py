"""`GET /metrics`: the metrics of the process that answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.metrics_page import MetricsPage

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Worker:
    """A metrics page with its registry."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests.", ("route",), registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", registry=self.registry)
        self.running = Gauge("running", "Running.", registry=self.registry)
        self.page = MetricsPage(self.registry, refresh=lambda: self.running.set(2), labels=labels)


def test_a_page_shows_the_present_values() -> None:
    worker = Worker()
    worker.requests.labels("/").inc()
    page, _ = worker.page.render("")
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    read = {(sample.name, *sample.labels.items()): sample.value for sample in samples}
    assert read["requests_total", ("route", "/")] == 1
    assert read["running",] == 2


@pytest.mark.parametrize(("accept", "parse"), [("", text_string_to_metric_families), (OPENMETRICS, parse_openmetrics)])
def test_labels_are_added_to_every_sample_and_change_nothing_else(accept: str, parse: object) -> None:
    """In both formats, including types and help texts."""
    assert callable(parse)
    labelled, plain = Worker({"pid": "7"}), Worker()
    for worker in (labelled, plain):
        worker.requests.labels("/a").inc(2)
        worker.seconds.observe(0.3)
    pages = [worker.page.render(accept) for worker in (labelled, plain)]
    assert pages[0][1] == pages[1][1]
    found, expected = (
        [
            (family.name, family.type, family.documentation, sample.name, sample.labels, sample.value)
            for family in parse(page.decode())
            for sample in family.samples
            if "_created" not in sample.name
        ]
        for page, _ in pages
    )
    assert found == [(*before, labels | {"pid": "7"}, value) for *before, labels, value in expected]
