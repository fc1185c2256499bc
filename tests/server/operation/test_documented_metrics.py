"""docs/metrics.md has the same metrics as /metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.core.caller import ApiKey
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.usage.key_usage import KeyUsage
from distilgpt2_api.usage.ledger import UsageLedger

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"\| `[a-z0-9_]+` \| (counter|gauge|histogram) \|")


def shown_rows(client: Any) -> list[str]:
    client.complete(prompt="once")
    client.get("/metrics")
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sorted(_row(family) for family in families if not family.name.endswith("_created"))


def _row(family: Metric) -> str:
    labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
    limits = dict.fromkeys(sample.labels["le"] for sample in family.samples if "le" in sample.labels)
    buckets = ", ".join(f"{float(limit):g}" for limit in limits if limit != "+Inf")
    name = f"{family.name}_total" if family.type == "counter" else family.name
    cells = [f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation, buckets]
    return re.sub(" +", " ", f"| {' | '.join(cells)} |")


def test_the_page_lists_exactly_the_metrics(
    open_client: Callable[..., Any], open_batch_service: OpenBatchService
) -> None:
    """To fix a failure, copy the rows that differ."""
    ring = KeyRing((ApiKey(name="alice", digest=b""),))
    usage = KeyUsage(ring, UsageLedger(), store=None)
    client = open_client(open_batch_service=open_batch_service, usage=usage)
    written = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if ROW.match(line)]
    assert sorted(written) == shown_rows(client)


def test_the_page_lists_every_field_of_the_log_line(client: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    client.post("/v1/completions", json={"prompt": "once", "user": "alice"})
    client.complete(prompt="once", timeout_s=1e-9)
    fields = {field for call in client.scene.log.calls for field in call.kwargs}
    assert fields >= {"queue_ms", "user_hash", "error_code", "abort_reason"}
    assert [field for field in sorted(fields) if f"| `{field}` | " not in text] == []
