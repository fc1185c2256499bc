"""`GET /metrics`: one worker's page, or the service's."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.metrics_folder import MetricsFolder
from distilgpt2_api.observability.metrics_page import MetricsPage

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Worker:
    """A page and what it counts."""

    def __init__(self, folder: Path | None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests.", ("route",), registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", registry=self.registry)
        self.running = Gauge("running", "Running.", registry=self.registry)
        self.page = MetricsPage(
            self.registry,
            folder=None if folder is None else MetricsFolder(folder),
            refresh=lambda: self.running.set(2),
        )

    def read(self) -> dict[tuple[str, ...], float]:
        page, _ = self.page.render("")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], Worker]:
    return lambda: Worker(tmp_path)


def test_alone_it_shows_its_own() -> None:
    worker = Worker(None)
    worker.requests.labels("/").inc()
    assert worker.read()["requests_total", "/"] == 1
    assert worker.read()["running",] == 2


def test_together_all_show_the_same(start: Callable[[], Worker]) -> None:
    first, second = start(), start()
    first.requests.labels("/a").inc(2)
    second.requests.labels("/a").inc(3)
    second.requests.labels("/b").inc()
    second.seconds.observe(0.3)
    second.read()  # publishes
    for worker in (first, second):
        read = worker.read()
        assert read["requests_total", "/a"] == 5
        assert read["requests_total", "/b"] == 1
        assert read["seconds_count",] == 1
        assert read["running",] == 4


def test_the_merged_page_is_what_a_single_workers_would_be(start: Callable[[], Worker]) -> None:
    """Both formats, types and texts included."""
    shared, alone = start(), Worker(None)
    for worker in (shared, alone):
        worker.requests.labels("/a").inc(2)
        worker.seconds.observe(0.3)
    for accept, parse in (("", text_string_to_metric_families), (OPENMETRICS, parse_openmetrics)):
        pages = [worker.page.render(accept) for worker in (shared, alone)]
        assert pages[0][1] == pages[1][1]
        families = [
            [
                (family.name, family.type, family.documentation, sample.name, sample.labels, sample.value)
                for family in parse(page.decode())
                for sample in family.samples
                if "_created" not in sample.name
            ]
            for page, _ in pages
        ]
        assert families[0] == families[1]


def test_what_was_counted_is_shared_while_it_serves_and_when_it_ends(start: Callable[[], Worker]) -> None:
    first, second = start(), start()

    async def serve() -> None:
        async with asyncio.timeout(20), second.page.published(interval_s=0.001):
            second.requests.labels("/").inc()
            while first.read().get(("requests_total", "/")) != 1:  # noqa: ASYNC110 - it is a file that changes
                await asyncio.sleep(0.001)
            second.requests.labels("/").inc()

    asyncio.run(serve())
    read = first.read()
    assert read["requests_total", "/"] == 2
    assert read["running",] == 2


def test_without_the_folder_it_shows_its_own_and_says_so_once(
    start: Callable[[], Worker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start()
    worker.requests.labels("/").inc()
    shutil.rmtree(tmp_path)
    for _ in range(3):
        assert worker.read()["requests_total", "/"] == 1
    assert len(caplog.records) == 1
