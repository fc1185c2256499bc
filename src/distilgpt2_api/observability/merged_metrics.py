"""Several workers' metrics as one service's. Plain JSON: Gunicorn's master imports this too, and no Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

CUMULATIVE_TYPES = frozenset({"counter", "histogram"})
"""What they have counted outlives a worker; what gauges say does not."""
EARLIEST = ("_created", "process_start_time_seconds")
"""Endings of samples that are times: of several the first."""
SHARES = "_ratio"
"""Ending of gauges from 0 to 1. Workers are alike: the mean is the whole service's."""
PER_SERVICE_TYPES = frozenset({"info"})

Snapshot = dict[str, Any]
"""A worker's families as JSON has them: name → type, text, samples (name, labels, value)."""


def cumulative_part(snapshot: Snapshot) -> Snapshot:
    """What is kept of a worker that has ended."""
    return {name: family for name, family in snapshot.items() if family["type"] in CUMULATIVE_TYPES}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Counters, histograms and gauges add up, with the exceptions above."""
    merged: Snapshot = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for snapshot in snapshots:
        for name, family in snapshot.items():
            merged.setdefault(name, {"type": family["type"], "text": family["text"]})
            of_family = values.setdefault(name, {})
            for sample_name, labels, value in family["samples"]:
                of_family.setdefault((sample_name, tuple(labels.items())), []).append(value)
    for name, family in merged.items():
        family["samples"] = [
            [sample_name, dict(labels), _combine(sample_name, family["type"], found)]
            for (sample_name, labels), found in values[name].items()
        ]
    return merged


def _combine(sample_name: str, family_type: str, values: list[float]) -> float:
    if family_type in PER_SERVICE_TYPES:
        return values[0]
    if sample_name.endswith(EARLIEST):
        return min(values)
    if family_type == "gauge" and sample_name.endswith(SHARES):
        return sum(values) / len(values)
    return sum(values)
