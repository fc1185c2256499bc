"""A model in an image of its own, on Kubernetes, with KServe and with Compose."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest

MOUNT = "/opt/models"
OLDEST_VERSION = "1.33"  # the first version in which the standard "restricted" allows image volumes
RUNTIME = "deploy/kserve/serving-runtime.yaml"


@pytest.fixture(scope="module")
def runtime(read_document: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return read_document(RUNTIME)


@pytest.fixture(scope="module")
def service(read_document: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return read_document("deploy/kserve/inference-service.yaml")


@pytest.fixture(scope="module")
def base_container(read_yaml: Any) -> dict[str, Any]:
    (deployment,) = read_yaml("deploy/kubernetes/base/deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _values(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


@pytest.mark.parametrize("folder", ["base", "overlays/scale"])
@pytest.mark.parametrize("version", [OLDEST_VERSION, kubernetes_validate.latest_version()])
def test_the_component_mounts_one_image_read_only(folder: str, version: str, kustomize: Any) -> None:
    deployment = kustomize(folder, "model-image")["Deployment", "distilgpt2-api"]
    assert version.startswith(kubernetes_validate.validate(deployment, version, strict=True))
    pod = deployment["spec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": MOUNT, "readOnly": True}
    assert volume["image"]["reference"].startswith("ghcr.io/OWNER/distilgpt2-model:")


def test_the_mounts_are_where_the_image_looks(root: Any, read_yaml: Any) -> None:
    """`/opt/model` is a link into the folder that a mount replaces."""
    assert "DISTILGPT2_MODEL=/opt/model\n" in (root / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(
        r'symlink_to\(f"models/\{LINK\}"\)', (root / "docker/prepare_model.py").read_text(encoding="utf-8")
    )
    (compose,) = read_yaml("deploy/compose/model-image.yaml")
    (volume,) = compose["services"]["api"]["volumes"]
    assert (volume["type"], volume["target"]) == ("image", MOUNT)


def test_compose_builds_an_image_without_a_model(read_yaml: Any) -> None:
    (compose,) = read_yaml("deploy/compose/model-image.yaml")
    assert compose["services"]["api"]["build"]["args"] == {"MODEL": "none"}
    assert set(compose) == {"services"}
    assert set(compose["services"]) == {"api"}


def test_kserve_mounts_a_model_image_without_a_shell(service: dict[str, Any], runtime: dict[str, Any]) -> None:
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {entry["name"] for entry in runtime["spec"]["supportedModelFormats"]}
    assert model["storageUri"].startswith("oci+native://ghcr.io/OWNER/distilgpt2-model:")
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert _values(container)["DISTILGPT2_MODEL"] == "/mnt/models/model"
    assert _values(container)["DISTILGPT2_SERVED_MODEL_NAMES"] == "{{.Name}}"


def test_kserve_s_container_is_that_of_the_deployment(
    runtime: dict[str, Any], service: dict[str, Any], base_container: dict[str, Any]
) -> None:
    """The same probes, the same stop and at least the same restrictions."""
    (container,) = runtime["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        expected = {**base_container[probe], "httpGet": {**base_container[probe]["httpGet"], "port": 8000}}
        assert container[probe] == expected
    assert container["lifecycle"] == base_container["lifecycle"]
    assert base_container["securityContext"].items() <= container["securityContext"].items()
    assert container["securityContext"]["runAsNonRoot"] is True
    assert _values(base_container).items() <= _values(container).items()
    assert service["spec"]["predictor"]["model"]["resources"] == base_container["resources"]


def test_kserve_s_stop_has_time_for_the_pause_and_the_drain(runtime: dict[str, Any], service: dict[str, Any]) -> None:
    (container,) = runtime["spec"]["containers"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = float(_values(container)["DISTILGPT2_DRAIN_S"])
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] >= pause_s + drain_s + 5


def test_kserve_s_pod_is_valid(runtime: dict[str, Any], service: dict[str, Any]) -> None:
    """With what KServe adds: the model's volume. Its own kinds have no published schema that this test could read."""
    predictor = service["spec"]["predictor"]
    (container,) = runtime["spec"]["containers"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "predictor"},
        "spec": {
            **{name: value for name, value in predictor.items() if name != "model"},
            "containers": [
                {
                    **container,
                    "resources": predictor["model"]["resources"],
                    "volumeMounts": [
                        {"name": "model", "mountPath": "/mnt/models", "subPath": "models", "readOnly": True}
                    ],
                }
            ],
            "volumes": [
                {
                    "name": "model",
                    "image": {"reference": predictor["model"]["storageUri"].removeprefix("oci+native://")},
                }
            ],
        },
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
