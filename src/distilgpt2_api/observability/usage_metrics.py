"""Prometheus metrics of usage per API key."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distilgpt2_api.core.usage import Usage

MAX_KEYS = 1000
"""Values of the label `key`. Keys beyond them are counted together."""
OTHER_KEYS = "_other"
"""Their label, which no key can have as its name."""
COUNTERS = (
    ("requests", "Requests that the engine admitted, by API key.", "num_requests"),
    ("prompt_tokens", "Prompt tokens of admitted requests, by API key.", "num_prompt_tokens"),
    ("completion_tokens", "Completion tokens, by API key.", "num_completion_tokens"),
    ("refusals", "Requests refused with 429 or 503, by API key.", "num_refusals"),
)
"""Each with the attribute of `Usage` that it shows."""


class UsageMetrics(Collector):
    """Reads at each scrape what this process has counted for the present keys."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        list_keys: Callable[[], Sequence[str]],
        read_usage: Callable[[str], Usage],
        read_is_stored: Callable[[], bool],
        read_num_unwritten: Callable[[], int],
    ) -> None:
        self._list_keys = list_keys
        self._read_usage = read_usage
        self._read_is_stored = read_is_stored
        self._read_num_unwritten = read_num_unwritten
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        keys = self._list_keys()
        usages = {key: self._read_usage(key) for key in keys[:MAX_KEYS]}
        if len(keys) > MAX_KEYS:
            usages[OTHER_KEYS] = sum((self._read_usage(key) for key in keys[MAX_KEYS:]), Usage())
        for name, text, attribute in COUNTERS:
            family = CounterMetricFamily(f"distilgpt2_key_{name}", text, labels=["key"])
            for key, usage in usages.items():
                family.add_metric([key], getattr(usage, attribute))
            yield family
        yield GaugeMetricFamily(
            "distilgpt2_usage_store_up",
            "1 if usage per API key could be stored at the last attempt, else 0.",
            value=self._read_is_stored(),
        )
        yield GaugeMetricFamily(
            "distilgpt2_usage_unwritten_rows",
            "Counts per API key and day that are not stored yet.",
            value=self._read_num_unwritten(),
        )
