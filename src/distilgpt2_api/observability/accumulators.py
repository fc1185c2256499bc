"""Metrics that one thread updates without a lock, while scrapes read them.

The classes of prometheus_client lock for each value: too slow for every token of every step.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString


class Accumulator(Protocol):
    """Mutable: the present value of one metric."""

    def update(self, value: Any, /) -> None: ...

    def family(self) -> Metric: ...


class Counter:
    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._total = 0

    def update(self, count: int) -> None:
        self._total += count

    def family(self) -> Metric:
        return CounterMetricFamily(self._name, self._text, value=self._total)


class LabelledCounter:
    """Events by the value of one label; each of `values` is shown from the start."""

    def __init__(self, name: str, text: str, *, label: str, values: Iterable[str]) -> None:
        self._name, self._text, self._label = name, text, label
        self._totals = dict.fromkeys(values, 0)

    def update(self, value: str) -> None:
        self._totals[value] += 1

    def family(self) -> Metric:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label])
        for value, total in self._totals.items():
            family.add_metric([str(value)], total)
        return family


class WeightedHistogram:
    """A histogram that counts equal values together. A scrape may see some buckets updated and others not yet."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """`bounds`: the buckets' inclusive upper limits, ascending."""
        self._name, self._text = name, text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def update(self, value: float | None, count: int = 1) -> None:
        """`count`: the number of times that the value occurred. None is no value."""
        if value is not None:
            self._counts[bisect_left(self._bounds, value)] += count
            self._sum += value * count

    def family(self) -> Metric:
        limits = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(limits, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)
