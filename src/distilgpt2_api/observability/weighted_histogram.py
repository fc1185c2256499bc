"""A histogram that counts many equal values at once, without a lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class WeightedHistogram:
    """Mutable; one thread's to write. A scrape reads meanwhile: each bucket is what it is at that moment.

    Prometheus's own takes a lock for each value, and one value at a time: too much for every token of every step.
    """

    __slots__ = ("_bounds", "_counts", "_name", "_sum", "_text")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """`bounds`: the buckets' upper limits, ascending, each one inside its bucket."""
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def family(self) -> HistogramMetricFamily:
        limits = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(limits, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)
