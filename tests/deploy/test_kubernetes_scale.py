"""The overlay for many pods and its components, as rendered by kubectl: valid by the schemas, and consistent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
from prometheus_client import CollectorRegistry

from distilgpt2_api.observability.engine_metrics import EngineMetrics

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
GATEWAY = "deploy/kubernetes/components/inference-gateway"
NAME = "distilgpt2-api"
PICKER = "distilgpt2-api-endpoint-picker"
OLDEST_VERSION = "1.30"
FOREIGN_GROUPS = {"inference.networking.k8s.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def read(read_document: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """`read("overlays/scale/autoscaler.yaml")`: the only document of a file."""
    return lambda path: read_document(f"deploy/kubernetes/{path}")


@pytest.fixture
def render(kustomize: Any) -> Render:
    """`render("keda")`: the overlay with components."""

    def run(*components: str) -> dict[tuple[str, str], dict[str, Any]]:
        rendered: dict[tuple[str, str], dict[str, Any]] = kustomize("overlays/scale", *components)
        return rendered

    return run


@pytest.mark.parametrize("components", [(), ("keda", "inference-gateway", "pod-monitor", "openshift")])
@pytest.mark.parametrize("version", [OLDEST_VERSION, kubernetes_validate.latest_version()])
def test_what_is_rendered_is_valid_and_in_one_namespace(
    version: str, components: tuple[str, ...], render: Render
) -> None:
    """Strict validation of Kubernetes' own kinds. Each component adds its objects."""
    rendered = render(*components)
    groups = {document["apiVersion"].partition("/")[0] for document in rendered.values()}
    assert groups & FOREIGN_GROUPS == (FOREIGN_GROUPS if components else set())
    for (kind, _), document in rendered.items():
        if kind != "Namespace":
            assert document["metadata"]["namespace"] == "distilgpt2", kind
        if document["apiVersion"].partition("/")[0] not in FOREIGN_GROUPS:
            assert version.startswith(kubernetes_validate.validate(document, version, strict=True))


def test_a_rendered_stop_has_time_for_the_pause_and_the_drain(render: Render) -> None:
    """The patch is merged into the base: each setting has one value, the overlay's."""
    pod = render("inference-gateway")["Deployment", NAME]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names))
    (drain_s,) = (float(entry["value"]) for entry in container["env"] if entry["name"] == "DISTILGPT2_DRAIN_S")
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert (pause_s, drain_s) == (15, 60)
    assert pod["terminationGracePeriodSeconds"] >= pause_s + drain_s + 5
    assert {entry["topologyKey"] for entry in pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    assert {"name": "DISTILGPT2_PUBLIC_METRICS", "value": "true"} in container["env"]


def test_every_file_is_used(read: Any) -> None:
    for folder in ("overlays/scale", "components/keda", "components/inference-gateway", "components/model-image"):
        kustomization = read(f"{folder}/kustomization.yaml")
        named = {name for name in kustomization.get("resources", []) if name.endswith(".yaml")}
        named |= {patch["path"] for patch in kustomization.get("patches", []) if "path" in patch}
        named |= {name for generator in kustomization.get("configMapGenerator", []) for name in generator["files"]}
        assert named == {path.name for path in (FOLDER / folder).iterdir()} - {"kustomization.yaml"}


def test_no_old_pod_stops_before_a_new_one_is_ready(read: Any) -> None:
    strategy = read("overlays/scale/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert read("overlays/scale/deployment.yaml")["spec"]["minReadySeconds"] > 0


def test_a_drained_node_is_never_blocked(read: Any) -> None:
    """At least one pod may be evicted: Kubernetes rounds percentages of a budget up."""
    assert read("overlays/scale/disruption-budget.yaml")["spec"] == {"maxUnavailable": "10%"}


def test_keda_scales_like_the_autoscaler_that_it_replaces(read: Any) -> None:
    """The same series, queue length, bounds and pace; and only one of the two exists."""
    base = read("base/autoscaler.yaml")["spec"]
    overlay = read("overlays/scale/autoscaler.yaml")["spec"]
    scaled = read("components/keda/scaled-object.yaml")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == base["scaleTargetRef"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (overlay["minReplicas"], overlay["maxReplicas"])
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == overlay["behavior"]
    (trigger,) = spec["triggers"]
    assert trigger["metricType"] == base["metrics"][0]["pods"]["target"]["type"]
    assert trigger["metadata"]["threshold"] == base["metrics"][0]["pods"]["target"]["averageValue"]
    assert base["metrics"][0]["pods"]["metric"]["name"] in trigger["metadata"]["query"]
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_keda_is_the_only_autoscaler(render: Render) -> None:
    kinds = [kind for kind, _ in render("keda")]
    assert "ScaledObject" in kinds
    assert "HorizontalPodAutoscaler" not in kinds


def test_the_pool_finds_the_pods_and_the_picker(read: Any, read_yaml: Any) -> None:
    pool = read("components/inference-gateway/inference-pool.yaml")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    pod = read("base/deployment.yaml")["spec"]["template"]
    assert pool["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    ports = [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]]
    assert [port["number"] for port in pool["spec"]["targetPorts"]] == ports
    picker = {document["kind"]: document for document in read_yaml(f"{GATEWAY}/endpoint-picker.yaml")}
    reference = pool["spec"]["endpointPickerRef"]
    assert reference["name"] == picker["Service"]["metadata"]["name"]
    assert reference["port"]["number"] in [port["port"] for port in picker["Service"]["spec"]["ports"]]
    assert f"--pool-name={pool['metadata']['name']}" in _picker_container(picker)["args"]


def test_the_route_leads_to_the_pool_and_not_to_the_metrics(read: Any) -> None:
    """The metrics need no key, because the picker sends none."""
    route = read("components/inference-gateway/http-route.yaml")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    (rule,) = route["spec"]["rules"]
    pool = read("components/inference-gateway/inference-pool.yaml")
    assert rule["backendRefs"] == [
        {"group": "inference.networking.k8s.io", "kind": pool["kind"], "name": pool["metadata"]["name"]}
    ]
    assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/v1"}]


def test_the_picker_reads_gauges_that_we_have(read: Any) -> None:
    """The extension's contract: waiting and running requests, and KV cache usage, as gauges without labels."""
    config = read("components/inference-gateway/endpoint-picker-config.yaml")
    plugins = {plugin["type"]: plugin.get("parameters", {}) for plugin in config["plugins"]}
    extractor = plugins["core-metrics-extractor"]
    (engine,) = extractor["engineConfigs"]
    assert extractor["defaultEngine"] == engine["name"]
    registry = CollectorRegistry()
    EngineMetrics(registry)
    families = {family.name: family for family in registry.collect()}
    for role in ("queuedRequestsSpec", "runningRequestsSpec", "kvUsageSpec"):
        family = families[engine[role]]
        assert family.type == "gauge"
        assert [sample.labels for sample in family.samples] == [{}]
    (profile,) = config["schedulingProfiles"]
    assert {plugin["pluginRef"] for plugin in profile["plugins"]} <= set(plugins)
    assert plugins["metrics-data-source"]["path"] == "/metrics"


def test_the_picker_passes_the_namespace_s_own_standard(read_yaml: Any) -> None:
    """Pod Security "restricted"; and none of the service's labels, or the Service would send it requests."""
    picker = {document["kind"]: document for document in read_yaml(f"{GATEWAY}/endpoint-picker.yaml")}
    pod = picker["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"] == {"app.kubernetes.io/name": PICKER}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = _picker_container(picker)
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [set(volume) - {"name"} for volume in pod["spec"]["volumes"]] == [{"configMap"}]


def test_the_picker_outlives_the_pods_that_it_picked(read: Any, read_yaml: Any) -> None:
    picker = {document["kind"]: document for document in read_yaml(f"{GATEWAY}/endpoint-picker.yaml")}
    grace_s = picker["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    pods = read("overlays/scale/deployment.yaml")["spec"]["template"]["spec"]
    assert grace_s > pods["terminationGracePeriodSeconds"]


def test_the_picker_may_only_read(read_yaml: Any) -> None:
    picker = {document["kind"]: document for document in read_yaml(f"{GATEWAY}/endpoint-picker.yaml")}
    assert {verb for rule in picker["Role"]["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def _picker_container(picker: dict[str, Any]) -> dict[str, Any]:
    (container,) = picker["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container
