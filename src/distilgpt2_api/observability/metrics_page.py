"""`GET /metrics`: this worker's metrics or, where several share a folder, the service's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from distilgpt2_api.observability.merged_metrics import Snapshot
from distilgpt2_api.observability.metrics_folder import MetricsFolder

logger = logging.getLogger(__name__)

PUBLISH_INTERVAL_S = 1.0
"""How old another worker's figures on the page can be, and what a SIGKILL can lose."""


class MetricsPage:
    """Event loop only."""

    def __init__(
        self, registry: CollectorRegistry, *, folder: MetricsFolder | None, refresh: Callable[[], None]
    ) -> None:
        """`refresh` is called before metrics are read."""
        self._registry = registry
        self._folder = folder
        self._refresh = refresh
        self._is_broken = False

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        families = self._read_all() if self._publish() else None
        if families is None:
            self._refresh()
            return encode(self._registry), content_type
        merged = CollectorRegistry()
        merged.register(Families(families))
        return encode(merged), content_type

    @asynccontextmanager
    async def published(self, interval_s: float = PUBLISH_INTERVAL_S) -> AsyncIterator[None]:
        """Share this worker's metrics regularly, and once more at the end."""
        if self._folder is None:
            yield
            return
        task = asyncio.create_task(self._publish_regularly(interval_s))
        try:
            yield
        finally:
            task.cancel()
            self._publish()
            self._folder.close()
            self._folder = None

    async def _publish_regularly(self, interval_s: float) -> None:
        while True:
            self._publish()
            await asyncio.sleep(interval_s)

    def _publish(self) -> bool:
        """What a scrape has shown once must be on file: no later one, by whichever worker, may show less."""
        if self._folder is None:
            return False
        self._refresh()
        try:
            self._folder.publish(snapshot_of(self._registry.collect()))
        except OSError as error:
            self._tell(error)
            return False
        self._is_broken = False
        return True

    def _read_all(self) -> list[Metric] | None:
        assert self._folder is not None
        try:
            return families_of(self._folder.merged())
        except OSError as error:
            self._tell(error)
            return None

    def _tell(self, error: OSError) -> None:
        """Once, not every second; until it works again the page is this worker's alone."""
        if not self._is_broken:
            logger.warning("workers can't share their metrics: %s", error)
        self._is_broken = True


class Families(Collector):
    """Families that were collected before."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def snapshot_of(families: Iterable[Metric]) -> Snapshot:
    return {
        family.name: {
            "type": family.type,
            "text": family.documentation,
            "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
        }
        for family in families
    }


def families_of(snapshot: Snapshot) -> list[Metric]:
    """`snapshot_of`, backwards."""
    families = []
    for name, stored in snapshot.items():
        family = Metric(name, stored["text"], stored["type"])
        family.samples = [Sample(sample_name, labels, value) for sample_name, labels, value in stored["samples"]]
        families.append(family)
    return families
