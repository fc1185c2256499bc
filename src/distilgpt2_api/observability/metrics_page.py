"""`GET /metrics`: the metrics of the process that answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


class MetricsPage:
    """Event loop only."""

    def __init__(
        self, registry: CollectorRegistry, *, refresh: Callable[[], None], labels: Mapping[str, str] | None = None
    ) -> None:
        """`refresh` is called before metrics are read. `labels` are added to every sample."""
        self._registry = registry
        self._refresh = refresh
        self._labels = labels or {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page in the format that an Accept header asks for, and its content type."""
        self._refresh()
        if not self._labels:
            encode, content_type = choose_encoder(accept)
            return encode(self._registry), content_type
        return encode_families(self._labelled(), accept)

    def _labelled(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = label_samples(family.samples, self._labels)
            yield family


class Families(Collector):
    """Families that have been collected before."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def label_samples(samples: Iterable[Sample], labels: Mapping[str, str]) -> list[Sample]:
    """The samples with these labels added."""
    return [sample._replace(labels={**sample.labels, **labels}) for sample in samples]


def encode_families(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """A page of these families in the format that an Accept header asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(Families([*families]))
    return encode(registry), content_type
