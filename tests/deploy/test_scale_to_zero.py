"""The recipes that scale to zero: valid where a schema exists, and with the values that the service needs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from pycep import BicepParser

from distilgpt2_api.server.http.routing.paths import PROBE_PATHS
from distilgpt2_api.settings import Settings

FOLDER = "deploy/scale-to-zero"
NAME = "distilgpt2-api"
PORT = Settings.model_fields["port"].default
TIMEOUT_S = Settings.model_fields["timeout_s"].default
IN_FLIGHT = 32
MAX_INSTANCES = 10
REVISION_FIELDS = {"containerConcurrency", "timeoutSeconds"}
"""Knative's own fields of a revision. The others are those of a pod."""


@pytest.fixture
def knative(read_yaml: Any) -> dict[str, Any]:
    (service,) = read_yaml(f"{FOLDER}/knative.yaml")
    return dict(service)


@pytest.fixture
def cloud_run(read_yaml: Any) -> dict[str, Any]:
    (service,) = read_yaml(f"{FOLDER}/cloud-run.yaml")
    return dict(service)


@pytest.fixture
def container_app(root: Path) -> dict[str, Any]:
    """The app's `properties`."""
    parsed = BicepParser().parse(text=(root / FOLDER / "container-app.bicep").read_text(encoding="utf-8"))
    return dict(parsed["resources"]["app"]["config"]["properties"])


@pytest.fixture
def rendered(tmp_path: Path, root: Path, run_command: Any) -> dict[str, Any]:
    """The kustomization for KEDA, as rendered by kubectl, by kind."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl: not installed, and nothing else here renders kustomizations")
    command = [kubectl, "kustomize", root / FOLDER / "keda-http"]
    result = run_command(command, HOME=str(tmp_path), PATH="/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    documents = [document for document in yaml.load_all(result.stdout, yaml.CSafeLoader) if document]
    assert len({(document["kind"], document["metadata"]["name"]) for document in documents}) == len(documents)
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def check_probe(probe: dict[str, Any], path: str) -> None:
    assert path in PROBE_PATHS
    assert probe["httpGet"] == {"path": path, "port": PORT}
    assert probe.get("timeoutSeconds", 1) <= (probe.get("periodSeconds") or 10)


@pytest.mark.parametrize("name", ["knative", "cloud_run"])
def test_a_revision_is_a_valid_pod(name: str, request: pytest.FixtureRequest) -> None:
    """Knative takes a pod's fields; strictly validated with Kubernetes' schema, without Knative's own two."""
    service = request.getfixturevalue(name)
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    assert set(service["spec"]) == {"template"}
    spec = {key: value for key, value in service["spec"]["template"]["spec"].items() if key not in REVISION_FIELDS}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert all(isinstance(value, str) for value in annotations.values())


def test_knative_scales_from_0_and_waits_for_the_service(knative: dict[str, Any]) -> None:
    template = knative["spec"]["template"]
    prefix = "autoscaling.knative.dev"
    annotations = template["metadata"]["annotations"]
    assert annotations[f"{prefix}/min-scale"] == "0"
    assert annotations[f"{prefix}/max-scale"] == str(MAX_INSTANCES)
    assert annotations[f"{prefix}/target"] == str(IN_FLIGHT)
    (container,) = template["spec"]["containers"]
    check_probe(container["readinessProbe"], "/readyz")
    check_probe(container["livenessProbe"], "/livez")
    assert container["ports"] == [{"name": "http1", "containerPort": PORT}]
    assert "periodSeconds" not in container["readinessProbe"]  # Knative then asks as fast as it can
    # Knative's default maximum, and the service ends a request by then. Also the time to stop.
    assert template["spec"]["timeoutSeconds"] == 600 <= TIMEOUT_S
    assert float(environment_of(container)["DISTILGPT2_DRAIN_S"]) < template["spec"]["timeoutSeconds"]
    assert template["spec"]["enableServiceLinks"] is False


def test_the_pod_on_knative_is_as_restricted_as_the_base_s(knative: dict[str, Any], read_yaml: Any) -> None:
    (base,) = read_yaml("deploy/kubernetes/base/deployment.yaml")
    pod = base["spec"]["template"]["spec"]
    (container,) = knative["spec"]["template"]["spec"]["containers"]
    expected = pod["containers"][0]["securityContext"] | pod["securityContext"]
    assert container["securityContext"] == {key: expected[key] for key in expected if key != "runAsGroup"}
    assert container["resources"] == pod["containers"][0]["resources"]


def test_keda_replaces_the_autoscaler_and_scales_from_0(rendered: dict[str, Any]) -> None:
    assert not [name for name in rendered if name.startswith("HorizontalPodAutoscaler/")]
    scaled = rendered[f"ScaledObject/{NAME}"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, MAX_INSTANCES)
    assert scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert f"Deployment/{NAME}" in rendered
    (trigger,) = scaled["triggers"]
    assert (trigger["type"], trigger["metadata"]["interceptorRoute"]) == ("external-push", NAME)
    assert "replicas" not in rendered[f"Deployment/{NAME}"]["spec"]


def test_keda_s_route_leads_to_the_service(rendered: dict[str, Any]) -> None:
    route = rendered[f"InterceptorRoute/{NAME}"]
    assert route["apiVersion"] == "http.keda.sh/v1beta1"
    target = route["spec"]["target"]
    ports = rendered[f"Service/{target['service']}"]["spec"]["ports"]
    assert target["portName"] in {port["name"] for port in ports}
    assert route["spec"]["scalingMetric"]["concurrency"]["targetValue"] == IN_FLIGHT
    assert float(route["spec"]["timeouts"]["responseHeader"].removesuffix("s")) > TIMEOUT_S
    proxy = f"{NAME}-proxy"
    assert rendered[f"Service/{proxy}"]["spec"]["type"] == "ExternalName"
    (rule,) = route["spec"]["rules"]
    assert {proxy, f"{proxy}.{route['metadata']['namespace']}.svc.cluster.local"} < set(rule["hosts"])


def test_what_keda_s_recipe_renders_is_valid(rendered: dict[str, Any]) -> None:
    for document in rendered.values():
        if "keda.sh" not in document["apiVersion"]:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "distilgpt2"


def test_cloud_run_scales_from_0_within_its_limits(cloud_run: dict[str, Any]) -> None:
    template = cloud_run["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == "0"
    assert annotations["autoscaling.knative.dev/maxScale"] == str(MAX_INSTANCES)
    assert template["spec"]["containerConcurrency"] == IN_FLIGHT
    assert TIMEOUT_S < template["spec"]["timeoutSeconds"] <= 3600
    (container,) = template["spec"]["containers"]
    assert container["ports"] == [{"name": "http1", "containerPort": PORT}]
    assert container["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}}
    start = container["startupProbe"]
    check_probe(start, "/readyz")
    check_probe(container["livenessProbe"], "/livez")
    assert start["periodSeconds"] * start["failureThreshold"] <= 240
    assert float(environment_of(container)["DISTILGPT2_DRAIN_S"]) + 1 < 10  # from SIGTERM to SIGKILL


def test_on_cloud_run_a_pause_does_not_kill_the_worker(cloud_run: dict[str, Any]) -> None:
    """An idle instance gets no processor time, so the worker's heartbeat is late when it gets some again."""
    (container,) = cloud_run["spec"]["template"]["spec"]["containers"]
    assert environment_of(container)["GUNICORN_CMD_ARGS"] == "--timeout 0"


def test_container_apps_scales_from_0_within_its_limits(container_app: dict[str, Any]) -> None:
    template = container_app["template"]
    assert template["scale"]["minReplicas"] == 0
    (rule,) = template["scale"]["rules"]
    assert rule["http"]["metadata"] == {"concurrentRequests": "10"}  # per second
    assert container_app["configuration"]["ingress"]["targetPort"] == PORT
    assert container_app["configuration"]["ingress"]["allowInsecure"] is False
    (container,) = template["containers"]
    probes = {probe["type"]: probe for probe in container["probes"]}
    check_probe(probes["Startup"], "/readyz")
    check_probe(probes["Readiness"], "/readyz")
    check_probe(probes["Liveness"], "/livez")
    for probe in probes.values():
        assert 1 <= probe["periodSeconds"] <= 240
        assert 1 <= probe["failureThreshold"] <= 10
    assert container["resources"]["memory"] == "4.0Gi"


def test_container_apps_let_a_replica_drain(container_app: dict[str, Any], root: Path) -> None:
    text = (root / FOLDER / "container-app.bicep").read_text(encoding="utf-8")
    drain_s = re.search(r"name: 'DISTILGPT2_DRAIN_S'\s+value: '(\d+)'", text)
    assert drain_s
    assert int(drain_s[1]) + 5 <= container_app["template"]["terminationGracePeriodSeconds"]


def test_container_apps_keep_keys_secret(root: Path) -> None:
    text = (root / FOLDER / "container-app.bicep").read_text(encoding="utf-8")
    assert re.search(r"@secure\(\)\nparam apiKeys string", text)
    assert re.search(r"name: 'DISTILGPT2_API_KEYS'\s+secretRef: 'api-keys'", text)
