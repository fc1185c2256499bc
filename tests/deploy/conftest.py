"""Fixtures: the checkout's deployment files, and commands in the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

ROOT = Path(__file__).parents[2]

ReadYaml = Callable[[str], list[Any]]
Unit = dict[str, list[str]]
"""The values of each `Section.Key` of a systemd unit, in order: keys repeat."""
ReadUnit = Callable[[str], Unit]
RunCommand = Callable[..., subprocess.CompletedProcess[str]]
Objects = dict[tuple[str, str], dict[str, Any]]
"""Kubernetes objects by kind and name."""
Kustomize = Callable[..., Objects]


class _Yaml12Loader(yaml.CSafeLoader):  # type: ignore[misc]  # untyped base, see above
    """Reads `on` as a string: GitHub and Compose read YAML 1.2; PyYAML reads YAML 1.1, where `on` is true."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


@pytest.fixture(scope="session", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    """kubernetes-validate reads a megabyte of definitions for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def read_yaml() -> ReadYaml:
    """`read_yaml("compose.yaml")`: the documents of a file of the checkout."""

    def read(path: str) -> list[Any]:
        with (ROOT / path).open(encoding="utf-8") as file:
            return [document for document in yaml.load_all(file, _Yaml12Loader) if document is not None]

    return read


@pytest.fixture(scope="session")
def read_document(read_yaml: ReadYaml) -> Callable[[str], dict[str, Any]]:
    """`read_document("deploy/swarm/stack.yaml")`: the only document of a file."""

    def read_one(path: str) -> dict[str, Any]:
        (document,) = read_yaml(path)
        assert isinstance(document, dict)
        return document

    return read_one


@pytest.fixture(scope="session")
def deployment_files() -> list[Path]:
    """Every text file about building, shipping or running the service, including documentation."""

    def files() -> Iterator[Path]:
        yield ROOT / "compose.yaml"
        for folder in ("deploy", ".github", ".devcontainer", "docs/deploy"):
            yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())
        yield from (ROOT / "docs" / name for name in ("container.md", "security.md"))

    return sorted(files())


@pytest.fixture(scope="session")
def run_command() -> RunCommand:
    """Runs a command in the checkout with exactly the given environment."""

    def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the tests check the exit code themselves
            [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture(scope="session")
def read_unit(root: Path) -> ReadUnit:
    """`read_unit("deploy/…")` parses a systemd unit of the checkout."""

    def read(name: str) -> Unit:
        entries: Unit = {}
        section = ""
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, value = line.split("=", 1)
                entries.setdefault(f"{section}.{key}", []).append(value)
        return entries

    return read


@pytest.fixture
def kustomize(root: Path, tmp_path: Path, run_command: RunCommand) -> Kustomize:
    """`kustomize("overlays/scale", "keda")`: one of our folders with components, as rendered by kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl: not installed, and nothing else here renders kustomizations")

    def run(folder: str, *components: str) -> Objects:
        shutil.copytree(root / "deploy" / "kubernetes", tmp_path / "kubernetes")
        kustomization = {
            "resources": [f"kubernetes/{folder}"],
            "components": [f"kubernetes/components/{name}" for name in components],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        result = run_command([kubectl, "kustomize", tmp_path], HOME=str(tmp_path), PATH="/usr/bin:/bin")
        assert result.returncode == 0, result.stderr
        return by_kind_and_name(yaml.load_all(result.stdout, yaml.CSafeLoader))

    return run


def by_kind_and_name(documents: Iterable[Any]) -> Objects:
    return {(document["kind"], document["metadata"]["name"]): document for document in documents if document}
