"""The Helm chart renders the same objects as the kustomizations, and refuses values that make no sense.

Helm 4's own library renders it, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "distilgpt2-api"
OLDEST_VERSION = "1.30"
NAME, NAMESPACE = "distilgpt2-api", "distilgpt2"
IMAGE = {"image": {"repository": "ghcr.io/owner/distilgpt2-api", "tag": "latest"}}
SCALE = yaml.safe_load((CHART / "values-scale.yaml").read_text(encoding="utf-8"))
COMPONENTS: dict[str, dict[str, Any]] = {
    "keda": {"autoscaling": {"keda": {"enabled": True}}},
    "pod-monitor": {"podMonitor": {"enabled": True}},
    "inference-gateway": {"inferenceGateway": {"enabled": True}},
    "model-image": {"modelImage": {"reference": "ghcr.io/owner/distilgpt2-model:latest"}},
    "seccomp": {
        "podSecurityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "distilgpt2-api.json"}}
    },
    "openshift": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}},
}
"""The values that stand for each component."""

PROGRAM = """
import json, sys
import helm_python as helm
for request in sys.stdin:
    action, chart, values, name, namespace = json.loads(request)
    try:
        if action == "lint":
            answer = [helm.lint(chart, values, strict=True), None]
        else:
            with helm.Chart.load(chart) as loaded:
                answer = [loaded.render(values, name=name, namespace=namespace), None]
    except helm.HelmError as error:
        answer = [None, str(error)]
    print(json.dumps(answer), flush=True)
"""
"""Answers each line, a request, with a line: a result or an error."""

Helm = Callable[..., Any]


@pytest.fixture(scope="module")
def helm(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    """`helm("render", values)`: Helm's answer, or its error as an AssertionError."""
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk: not installed, and nothing else here renders charts")
    environment = {"HOME": str(tmp_path_factory.mktemp("home")), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        requests, answers = process.stdin, process.stdout
        assert requests
        assert answers

        def run(action: str, values: dict[str, Any], *, name: str = NAME) -> Any:
            print(json.dumps([action, str(CHART), values, name, NAMESPACE]), file=requests, flush=True)
            result, error = json.loads(answers.readline())
            assert error is None, error
            return result

        yield run


@pytest.fixture
def render(helm: Helm) -> Callable[..., list[Any]]:
    """`render(values)`: the chart's objects."""

    def run(*values: dict[str, Any], name: str = NAME) -> list[Any]:
        merged: dict[str, Any] = {}
        for layer in (IMAGE, *values):
            merged = merge(merged, layer)
        files = helm("render", merged, name=name)
        texts = (text for file, text in files.items() if file.endswith(".yaml"))
        return [document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document]

    return run


def merge(base: Any, top: Any) -> Any:
    """As Helm merges values: objects by key, anything else is replaced."""
    if isinstance(base, dict) and isinstance(top, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in top.items()}}
    return top


def comparable(documents: list[Any]) -> dict[tuple[str, str], Any]:
    """Objects by kind and name, without what is meant to differ.

    A chart makes no Namespace and labels its objects in Helm's way; kustomize names a generated ConfigMap after its
    content. The order of variables has no meaning.
    """
    objects = {}
    for document in documents:
        if document["kind"] == "Namespace":
            continue
        reduced = _reduce(document)
        reduced["metadata"].pop("labels", None)
        if reduced["kind"] == "ConfigMap":
            reduced["data"] = {name: yaml.safe_load(text) for name, text in reduced["data"].items()}
        objects[reduced["kind"], reduced["metadata"]["name"]] = reduced
    return objects


def _reduce(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {
            key: _reduce(item)
            for key, item in value.items()
            if key not in {"app.kubernetes.io/instance", "checksum/config"}
        }
        if "env" in kept:
            kept["env"] = sorted(kept["env"], key=lambda entry: str(entry["name"]))
        if kept.get("annotations") == {}:
            del kept["annotations"]
        return kept
    if isinstance(value, list):
        return [_reduce(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"^(.*-endpoint-picker)-[a-z0-9]{10}$", r"\1", value).replace("ghcr.io/OWNER/", "ghcr.io/owner/")
    return value


@pytest.mark.parametrize(
    ("folder", "components"),
    [
        ("base", ()),
        ("base", ("pod-monitor",)),
        ("base", ("inference-gateway",)),
        ("base", ("model-image",)),
        ("base", ("seccomp",)),
        ("base", ("openshift",)),
        ("overlays/scale", ()),
        ("overlays/scale", ("keda",)),
        ("overlays/scale", tuple(COMPONENTS)),
    ],
)
def test_the_chart_renders_what_the_kustomization_does(
    folder: str, components: tuple[str, ...], render: Any, kustomize: Any
) -> None:
    """Object by object and field by field: there is no second truth."""
    values = [SCALE] if folder == "overlays/scale" else []
    ours = comparable(render(*values, *(COMPONENTS[name] for name in components)))
    theirs = comparable(list(kustomize(folder, *components).values()))
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        assert ours[key] == expected, key


def test_every_component_has_its_values(root: Path) -> None:
    folders = {path.name for path in (root / "deploy" / "kubernetes" / "components").iterdir()}
    assert folders == set(COMPONENTS)


@pytest.mark.parametrize("values", [{}, SCALE, *COMPONENTS.values(), {"autoscaling": {"enabled": False}}])
def test_every_object_is_valid_and_in_the_release_s_namespace(values: dict[str, Any], render: Any) -> None:
    """Strict validation of Kubernetes' own kinds with its published schemas: a misspelt field is an error."""
    foreign = {"inference.networking.k8s.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}
    oldest = "1.33" if "modelImage" in values else OLDEST_VERSION
    documents = render(values)
    assert documents
    for document in documents:
        assert document["metadata"]["namespace"] == NAMESPACE
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == NAME
        if document["apiVersion"].partition("/")[0] not in foreign:
            for version in (oldest, kubernetes_validate.latest_version()):
                assert version.startswith(kubernetes_validate.validate(document, version, strict=True))


def test_lint_finds_nothing(helm: Helm) -> None:
    report = helm("lint", IMAGE)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_two_releases_share_no_object_and_no_pod(render: Any) -> None:
    values = [COMPONENTS["inference-gateway"], COMPONENTS["pod-monitor"]]
    first, second = render(*values), render(*values, name="other")
    assert {document["metadata"]["name"] for document in second} == {
        "other-distilgpt2-api",
        "other-distilgpt2-api-endpoint-picker",
    }
    assert not {document["metadata"]["name"] for document in first} & {
        document["metadata"]["name"] for document in second
    }
    (deployment,) = [d for d in second if d["kind"] == "Deployment" and "picker" not in d["metadata"]["name"]]
    (service,) = [d for d in second if d["kind"] == "Service" and "picker" not in d["metadata"]["name"]]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"]["app.kubernetes.io/instance"] == "other"


def test_without_autoscaling_the_number_of_pods_is_a_value(render: Any) -> None:
    objects = comparable(render({"autoscaling": {"enabled": False}, "replicas": 3}))
    assert objects["Deployment", NAME]["spec"]["replicas"] == 3
    assert not [kind for kind, _ in objects if kind == "HorizontalPodAutoscaler"]


def test_settings_become_variables_as_they_were_written(render: Any) -> None:
    """Helm reads all numbers as floats, and Go would print a large one as 1e+07."""
    settings = {"max_body_bytes": 10_000_000, "temperature": 0.5, "public_metrics": True, "precision": "int8"}
    objects = comparable(render({"settings": settings}, COMPONENTS["inference-gateway"]))
    (container,) = objects["Deployment", NAME]["spec"]["template"]["spec"]["containers"]
    values = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    assert len(values) == len([entry for entry in container["env"] if "value" in entry])
    assert values == {
        "DISTILGPT2_DRAIN_S": "20",
        "DISTILGPT2_LOG_FORMAT": "json",
        "DISTILGPT2_MAX_BODY_BYTES": "10000000",
        "DISTILGPT2_PRECISION": "int8",
        "DISTILGPT2_PUBLIC_METRICS": "true",
        "DISTILGPT2_TEMPERATURE": "0.5",
    }


def test_a_digest_takes_the_place_of_the_tag(render: Any) -> None:
    digest = f"sha256:{'0' * 64}"
    objects = comparable(render({"image": {"digest": digest}}))
    (container,) = objects["Deployment", NAME]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/owner/distilgpt2-api@{digest}"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image": {"repository": ""}}, "image.repository: name the image, such as"),
        ({"image": {"repository": "ghcr.io/OWNER/x"}}, "at '/image/repository': 'ghcr.io/OWNER/x' does not match"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match"),
        ({"imagee": {}}, "additional properties 'imagee' not allowed"),
        ({"service": {"port": 70_000}}, "at '/service/port': maximum: got 70,000, want 65,535"),
        ({"autoscaling": {"minReplicas": 0}}, "at '/autoscaling/minReplicas': minimum: got 0, want 1"),
        ({"autoscaling": {"minReplicas": "3"}}, "at '/autoscaling/minReplicas': got string, want integer"),
        ({"autoscaling": {"minReplicas": 9}}, "autoscaling.minReplicas can't be 9: autoscaling.maxReplicas is 8"),
        (
            {"autoscaling": {"keda": {"enabled": True, "fallbackReplicas": 9}}},
            "autoscaling.keda.fallbackReplicas can't be 9: it must be from autoscaling.minReplicas (2) to",
        ),
        (
            {"terminationGracePeriodSeconds": 20},
            "terminationGracePeriodSeconds can't be 20: preStopSeconds (5) + settings.drain_s (20) + 5 s",
        ),
        ({"settings": {"drain_s": "long"}}, "at '/settings/drain_s': got string, want number"),
        ({"settings": {"DRAIN": 3}}, "at '/settings': additional properties 'DRAIN' not allowed"),
        ({"settings": {"api_keys": "alice:KEY"}}, "settings.api_keys: keys belong in the secret that secretName names"),
        ({"resources": {"limits": {"cpu": None}}}, "at '/resources/limits': missing property 'cpu'"),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "at '/podDisruptionBudget/maxUnavailable'"),
        ({"modelImage": {"reference": "UPPER:x"}}, "at '/modelImage/reference'"),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "y", "labelSelector": {}}
                ]
            },
            "at '/topologySpreadConstraints/0'",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_named(values: dict[str, Any], words: str, helm: Helm) -> None:
    with pytest.raises(AssertionError) as caught:
        helm("render", merge(IMAGE, values))
    assert words in str(caught.value)


def test_the_schema_lists_every_value_and_no_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def check(found: dict[str, Any], expected: dict[str, Any], path: str) -> None:
        assert found.keys() == expected["properties"].keys() - {"global"}, path
        for name, item in expected["properties"].items():
            if item.get("additionalProperties") is False and "properties" in item and "patternProperties" not in item:
                check(found[name], item, f"{path}/{name}")

    check(values, schema, "")


def test_the_chart_has_the_project_s_version(root: Path) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^\[tool\.poetry\]$.*?^version = "(.+?)"$', project, re.MULTILINE | re.DOTALL)
    assert version
    assert (chart["version"], chart["appVersion"]) == (version[1], version[1])


def test_the_notes_are_about_this_release(helm: Helm) -> None:
    notes = helm("render", merge(IMAGE, COMPONENTS["model-image"]), name="other")[f"{NAME}/templates/NOTES.txt"]
    assert "port-forward service/other-distilgpt2-api 8000:80" in notes
    assert "create secret generic other-distilgpt2-api " in notes
    assert "ghcr.io/owner/distilgpt2-model:latest" in notes
