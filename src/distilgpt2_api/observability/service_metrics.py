"""Prometheus metrics of the service and its process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


def add_service_metrics(
    registry: CollectorRegistry,
    *,
    info: Mapping[str, str],
    states: Iterable[str],
    read_state: Callable[[], str],
    read_num_connections: Callable[[], int | None],
) -> None:
    """Register metrics that are read at each scrape. `read_state` returns one of `states`."""
    Info("distilgpt2_service", "The model, its names, precision and version: always 1.", registry=registry).info(
        dict(info)
    )
    Counter("distilgpt2_worker_starts", "Starts of the worker that answers: always 1.", registry=registry).inc()
    state = Gauge(
        "distilgpt2_engine_state", "1 for the engine's present state, 0 for others.", ("state",), registry=registry
    )
    for name in states:
        state.labels(name).set_function(partial(lambda of_label: float(read_state() == of_label), name))
    registry.register(ConnectionsCollector(read_num_connections))
    ProcessCollector(registry=registry)


class ConnectionsCollector(Collector):
    """Open connections, if the server reports them."""

    def __init__(self, read_num_connections: Callable[[], int | None]) -> None:
        self._read_num_connections = read_num_connections

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "distilgpt2_open_connections", "Open connections, including idle ones.", value=self._read_num_connections()
        )
