"""A histogram that counts equal values together."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

from distilgpt2_api.observability.accumulators import WeightedHistogram

BOUNDS = (0.1, 1.0, 2.5)
VALUES = (0.05, 0.1, 0.10001, 1.0, 2.5, 3.0)


def test_it_equals_a_histogram_of_prometheus_client() -> None:
    """Limits are inclusive, buckets are cumulative, and the last one has all values."""
    registry = CollectorRegistry()
    theirs = Histogram("seconds", "Time.", buckets=BOUNDS, registry=registry)
    ours = WeightedHistogram("seconds", "Time.", BOUNDS)
    for value in VALUES:
        for _ in range(3):
            theirs.observe(value)
        ours.update(value, 3)
    [expected] = registry.collect()
    family = ours.family()
    assert (family.name, family.type, family.documentation) == (expected.name, expected.type, expected.documentation)
    shown = {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}
    for sample in expected.samples:
        if not sample.name.endswith("_created"):
            assert abs(shown[sample.name, *sample.labels.values()] - sample.value) < 1e-9


def test_a_histogram_without_values_is_shown() -> None:
    family = WeightedHistogram("seconds", "Time.", BOUNDS).family()
    assert [sample.value for sample in family.samples] == [0] * (len(BOUNDS) + 3)
