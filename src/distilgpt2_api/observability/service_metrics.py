"""Prometheus metrics of the service and its process."""

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
    """Register metrics that are read at each scrape. `read_state` returns one of `states`."""
    Info("distilgpt2_service", "The model, precision and version served: always 1.", registry=registry).info(dict(info))
    Counter("distilgpt2_worker_starts", "Starts of the worker that answers: always 1.", registry=registry).inc()
    registry.register(StateCollector(tuple(states), read_state))
    registry.register(ConnectionsCollector(read_num_connections))
    ProcessCollector(registry=registry)


class StateCollector(Collector):
    """The engine's state: one gauge for each possible state."""

    def __init__(self, states: tuple[str, ...], read_state: Callable[[], str]) -> None:
        self._states = states
        self._read_state = read_state

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "distilgpt2_engine_state", "1 for the engine's present state, 0 for others.", labels=["state"]
        )
        current = self._read_state()
        for state in self._states:
            family.add_metric([state], float(state == current))
        yield family


class ConnectionsCollector(Collector):
    """Open connections, if the server reports them."""

    def __init__(self, read_num_connections: Callable[[], int | None]) -> None:
        self._read_num_connections = read_num_connections

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "distilgpt2_open_connections", "Open connections, including idle ones.", value=self._read_num_connections()
        )
