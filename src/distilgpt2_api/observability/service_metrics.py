"""What is served and in which state, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Info, ProcessCollector
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
    """Metrics that are read where they lie when a scrape comes. `read_state` gives one of `states`."""
    Info("distilgpt2_service", "What is served.", registry=registry).info(dict(info))
    Counter("distilgpt2_worker_starts", "Starts of the worker that answers: always 1.", registry=registry).inc()
    registry.register(StateCollector(tuple(states), read_state))
    registry.register(ConnectionsCollector(read_num_connections))
    ProcessCollector(registry=registry)


class StateCollector(Collector):
    """The engine's state, as one gauge for each that there is."""

    def __init__(self, states: tuple[str, ...], read_state: Callable[[], str]) -> None:
        self._states = states
        self._read_state = read_state

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("distilgpt2_engine_state", "1 for the engine's state, else 0.", labels=["state"])
        current = self._read_state()
        for state in self._states:
            family.add_metric([state], float(state == current))
        yield family


class ConnectionsCollector(Collector):
    """Open connections, where the server tells how many there are."""

    def __init__(self, read_num_connections: Callable[[], int | None]) -> None:
        self._read_num_connections = read_num_connections

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "distilgpt2_open_connections", "Connections, idle ones included.", value=self._read_num_connections()
        )
