"""The dev container installs a working checkout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def devcontainer(root: Path) -> dict[str, Any]:
    text = (root / ".devcontainer/devcontainer.json").read_text(encoding="utf-8")
    document = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert isinstance(document, dict)
    return document


def test_it_installs_with_targets_that_exist(devcontainer: dict[str, Any], root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"make ([\w./-]+)", devcontainer["postCreateCommand"])
    assert targets[0] == "install"
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_the_service_is_reachable_and_containers_can_be_built(devcontainer: dict[str, Any]) -> None:
    assert 8000 in devcontainer["forwardPorts"]
    assert any("docker-in-docker" in feature for feature in devcontainer["features"])


def test_python_is_the_image_s_python(devcontainer: dict[str, Any], root: Path) -> None:
    base = re.search(
        r"^ARG PYTHON_IMAGE=\S+:(3\.\d+)-", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert base
    assert devcontainer["image"].endswith(f":{base[1]}")
