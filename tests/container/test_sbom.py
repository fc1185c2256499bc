"""`make sbom` lists the packages that the image has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.container.builds import ROOT
from tests.container.engines import Docker

FILE = ROOT / "build" / "sbom.cdx.json"


@pytest.fixture(scope="module")
def document() -> Any:
    if not FILE.exists():
        pytest.skip("build/sbom.cdx.json: not there; `make sbom` writes it")
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_it_is_about_this_version_and_the_same_each_time(document: Any) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    subject = document["metadata"]["component"]
    assert (document["bomFormat"], subject["name"], subject["version"]) == ("CycloneDX", "distilgpt2-api", version[1])
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]


def test_every_package_of_the_image_is_listed_with_its_version(docker: Docker, image: str, document: Any) -> None:
    program = """
import importlib.metadata, json
print(json.dumps({found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}))
"""
    installed = json.loads(docker.run(image, "python", "-c", program).stdout)
    listed = {normal(component["name"]): component["version"] for component in document["components"]}
    subject = installed.pop("distilgpt2-api")
    assert subject
    assert len(installed) > 15
    assert {normal(name): version for name, version in installed.items()}.items() <= listed.items()


def test_every_package_has_the_hashes_of_the_lock(document: Any) -> None:
    for component in document["components"]:
        references = component["externalReferences"]
        assert any(entry["alg"] == "SHA-256" for reference in references for entry in reference.get("hashes", []))
        assert component["purl"].startswith("pkg:pypi/")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
