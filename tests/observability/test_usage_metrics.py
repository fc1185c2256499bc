"""Metrics by key have a bounded number of label values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from distilgpt2_api.core.usage import Usage
from distilgpt2_api.observability.usage_metrics import MAX_KEYS, UsageMetrics


def test_keys_beyond_the_bound_are_counted_together() -> None:
    registry = CollectorRegistry()
    UsageMetrics(
        registry,
        list_keys=lambda: [f"key-{number}" for number in range(MAX_KEYS + 2)],
        read_usage=lambda _key: Usage(num_requests=3),
        read_is_stored=lambda: False,
        read_num_unwritten=lambda: 5,
    )
    [family] = [family for family in registry.collect() if family.name == "distilgpt2_key_requests"]
    values = {sample.labels["key"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert len(values) == MAX_KEYS + 1
    assert (values["key-0"], values["_other"]) == (3, 6)
    assert registry.get_sample_value("distilgpt2_usage_store_up") == 0
    assert registry.get_sample_value("distilgpt2_usage_unwritten_rows") == 5
