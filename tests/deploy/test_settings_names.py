"""No file names an unknown setting, with which the service would refuse to start."""

from __future__ import annotations

import re
from pathlib import Path

from distilgpt2_api.settings import Settings

KNOWN = {f"DISTILGPT2_{name.upper()}" for name in Settings.model_fields} | {"DISTILGPT2_CONFIG_FILE"}


MENTIONED = {
    ("DISTILGPT2_API_SERVICE_HOST", "deployment.yaml"),  # Kubernetes would set it; the file disables that
    ("DISTILGPT2_PRECSION", "container.md"),  # the typing error that the page shows
}


def test_every_setting_exists(deployment_files: list[Path]) -> None:
    found = {
        (name, path.name)
        for path in deployment_files
        for name in re.findall(r"\bDISTILGPT2_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8"))
    }
    assert found
    assert {entry for entry in found - MENTIONED if entry[0] not in KNOWN} == set()


def test_no_file_contains_a_digest(deployment_files: list[Path]) -> None:
    """Files name images by tag; the release workflow resolves and pins the digests."""
    assert [
        path for path in deployment_files if re.search(r"sha256:[0-9a-f]{64}", path.read_text(encoding="utf-8"))
    ] == []
