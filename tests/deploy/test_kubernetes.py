"""The manifests fulfil the published schemas and the strictest Pod Security standard."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

FOLDER = "deploy/kubernetes"
OLDEST_VERSION = "1.30"  # the first version with `sleep` in preStop enabled
BASE = sorted((Path(__file__).parents[2] / FOLDER / "base").glob("*.yaml"))
LABEL = {"app.kubernetes.io/name": "distilgpt2-api"}


@pytest.fixture(scope="module")
def manifests(read_yaml: Any) -> dict[str, dict[str, Any]]:
    """The base's manifests by kind."""
    (kustomization,) = read_yaml(f"{FOLDER}/base/kustomization.yaml")
    documents = [document for name in kustomization["resources"] for document in read_yaml(f"{FOLDER}/base/{name}")]
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec = manifests["Deployment"]["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


def test_kustomization_names_every_file_beside_it(read_yaml: Any) -> None:
    (kustomization,) = read_yaml(f"{FOLDER}/base/kustomization.yaml")
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in BASE}


@pytest.mark.parametrize("version", [OLDEST_VERSION, kubernetes_validate.latest_version()])
def test_every_manifest_is_valid(version: str, manifests: dict[str, dict[str, Any]]) -> None:
    """Strict validation with Kubernetes' published schemas: a misspelt field is an error."""
    assert len(manifests) == 7
    for manifest in manifests.values():
        assert version.startswith(kubernetes_validate.validate(manifest, version, strict=True))


def test_pod_security_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Each rule of the standard, and two stricter ones: read-only root, numeric user."""
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert isinstance(pod["securityContext"]["runAsUser"], int)
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])


def test_the_namespace_enforces_it(manifests: dict[str, dict[str, Any]]) -> None:
    assert manifests["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_pod_has_no_token_and_no_foreign_settings(pod: dict[str, Any]) -> None:
    """Service links would set variables with the prefix of our settings."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_every_selector_finds_the_pods(manifests: dict[str, dict[str, Any]]) -> None:
    deployment = manifests["Deployment"]["spec"]
    assert deployment["template"]["metadata"]["labels"] == LABEL
    assert deployment["selector"]["matchLabels"] == LABEL
    assert manifests["Service"]["spec"]["selector"] == LABEL
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == LABEL
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABEL
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABEL


def test_probes_have_their_routes(container: dict[str, Any]) -> None:
    """Liveness never touches the model; readiness does; a model has two minutes to load."""
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/readyz", "liveness": "/livez", "readiness": "/readyz"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    assert {container[f"{name}Probe"]["httpGet"]["port"] for name in paths} == {"http"}


def test_a_stop_has_time_for_the_pause_and_the_drain(pod: dict[str, Any], container: dict[str, Any]) -> None:
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = next(float(entry["value"]) for entry in container["env"] if entry["name"] == "DISTILGPT2_DRAIN_S")
    assert pod["terminationGracePeriodSeconds"] >= pause_s + drain_s + 5


def test_resources_are_bounded(container: dict[str, Any]) -> None:
    """Most of all CPU: the service derives its number of threads from the limit."""
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_the_autoscaler_owns_the_number_of_pods(manifests: dict[str, dict[str, Any]]) -> None:
    """It scales by the number of waiting requests, not by CPU usage."""
    assert "replicas" not in manifests["Deployment"]["spec"]
    autoscaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    (metric,) = autoscaler["metrics"]
    assert metric["type"] == "Pods"
    assert autoscaler["minReplicas"] >= 2


def test_the_adapter_serves_the_autoscaler_s_metric(manifests: dict[str, dict[str, Any]], read_yaml: Any) -> None:
    metric = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    (values,) = read_yaml(f"{FOLDER}/prometheus-adapter-values.yaml")
    (rule,) = values["rules"]["custom"]
    assert f'__name__="{metric}"' in rule["seriesQuery"]


def test_nothing_leaves_the_pod_and_one_port_leads_in(manifests: dict[str, dict[str, Any]]) -> None:
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = policy["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": "http"}]


def test_a_drained_node_is_never_blocked(manifests: dict[str, dict[str, Any]]) -> None:
    assert manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_image_is_named_only_once(container: dict[str, Any], read_yaml: Any) -> None:
    (kustomization,) = read_yaml(f"{FOLDER}/base/kustomization.yaml")
    (image,) = kustomization["images"]
    assert image["name"] == container["image"]


def test_the_openshift_component_removes_existing_fields(pod: dict[str, Any], read_yaml: Any) -> None:
    """A JSON patch that removes a missing field fails the whole build."""
    (component,) = read_yaml(f"{FOLDER}/components/openshift/kustomization.yaml")
    lines = component["patches"][0]["patch"].splitlines()
    removed = [line.split(": ")[1] for line in lines if "path:" in line]
    prefix = "/spec/template/spec/securityContext/"
    assert removed
    assert all(path.startswith(prefix) and path.removeprefix(prefix) in pod["securityContext"] for path in removed)


def test_the_seccomp_component_gives_a_valid_pod(manifests: dict[str, dict[str, Any]], read_yaml: Any) -> None:
    (component,) = read_yaml(f"{FOLDER}/components/seccomp/kustomization.yaml")
    (patch,) = component["patches"]
    deployment = copy.deepcopy(manifests["Deployment"])
    assert patch["target"] == {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("replace", "/spec/template/spec/securityContext/seccompProfile")
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    assert "seccompProfile" in security, "a patch can't replace a missing field"
    security["seccompProfile"] = operation["value"]
    assert kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)
    assert security["seccompProfile"]["type"] == "Localhost"


def test_the_pod_monitor_scrapes_our_pods(read_yaml: Any, container: dict[str, Any]) -> None:
    (monitor,) = read_yaml(f"{FOLDER}/components/pod-monitor/pod-monitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"] == LABEL
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
