"""Alerts and dashboards use existing metrics, and Grafana can show the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from distilgpt2_api.core.usage import Usage
from distilgpt2_api.observability.engine_metrics import EngineMetrics
from distilgpt2_api.observability.http_metrics import HttpMetrics
from distilgpt2_api.observability.service_metrics import add_service_metrics
from distilgpt2_api.observability.usage_metrics import UsageMetrics

DASHBOARD = "deploy/monitoring/grafana/dashboards/distilgpt2-api.json"
SERIES_OF = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}


@pytest.fixture(scope="module")
def series() -> set[str]:
    """Every series of the application."""
    registry = CollectorRegistry()
    EngineMetrics(registry)
    HttpMetrics(registry)
    UsageMetrics(
        registry,
        list_keys=list,
        read_usage=lambda _: Usage(),
        read_is_stored=lambda: True,
        read_num_unwritten=lambda: 0,
    )
    add_service_metrics(registry, info={}, states=["ready"], read_state=lambda: "ready", read_num_connections=lambda: 1)
    return {family.name + suffix for family in registry.collect() for suffix in SERIES_OF[family.type]}


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    document = json.loads((root / DASHBOARD).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def _charts(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in _charts(dashboard):
        for target in panel["targets"]:
            yield target["expr"]


def test_every_series_named_in_a_deployment_file_exists(series: set[str], deployment_files: list[Path]) -> None:
    found = {
        (name, path.name)
        for path in deployment_files
        for name in re.findall(r"\b(?:distilgpt2|process)_[a-z_]+", path.read_text(encoding="utf-8"))
        if name != "distilgpt2_api"  # the package
    }
    assert found
    assert {entry for entry in found if entry[0] not in series} == set()


def test_the_dashboard_shows_every_metric_of_the_engine(dashboard: dict[str, Any]) -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry)
    shown = " ".join(_queries(dashboard))
    assert [family.name for family in registry.collect() if family.name not in shown] == []


def test_every_query_is_closed_and_follows_the_chosen_instance(dashboard: dict[str, Any]) -> None:
    for query in _queries(dashboard):
        for opening, closing in ("()", "[]", "{}"):
            assert query.count(opening) == query.count(closing), query
        num_series = len(re.findall(r"\b(?:distilgpt2|process)_", query))
        assert num_series == query.count('instance=~"$instance"'), query


def test_the_dashboard_uses_the_provisioned_data_source(dashboard: dict[str, Any], read_yaml: Any) -> None:
    (provisioned,) = read_yaml("deploy/monitoring/grafana/provisioning/datasources/prometheus.yml")
    (source,) = provisioned["datasources"]
    assert {panel["datasource"]["uid"] for panel in _charts(dashboard)} == {source["uid"]}


def test_panels_have_their_own_ids_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_compose_mounts_what_grafana_and_prometheus_read(read_yaml: Any) -> None:
    (compose,) = read_yaml("compose.yaml")
    (providers,) = read_yaml("deploy/monitoring/grafana/provisioning/dashboards/dashboards.yml")
    mounts = compose["services"]["grafana"]["volumes"]
    assert any(f":{providers['providers'][0]['options']['path']}:" in mount for mount in mounts)
    (prometheus,) = read_yaml("deploy/monitoring/prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    assert "api" in compose["services"]
    mounted = compose["services"]["prometheus"]["volumes"]
    assert all(any(f"/{name}:" in mount for mount in mounted) for name in prometheus["rule_files"])


def test_every_alert_says_what_happened_and_what_to_do(read_yaml: Any) -> None:
    (alerts,) = read_yaml("deploy/monitoring/alerts.yml")
    for rule in alerts["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_alert_has_a_case_in_which_it_fires(read_yaml: Any) -> None:
    """`promtool test rules` runs the cases; this test finds a missing one."""
    (alerts,) = read_yaml("deploy/monitoring/alerts.yml")
    (cases,) = read_yaml("deploy/monitoring/alerts-test.yml")
    fired = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert {rule["alert"] for rule in alerts["groups"][0]["rules"]} == fired
