"""The contract tests through Ray's proxy and the gateway: clients see no difference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import small_model

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("option", "min_passed"), [("--server-url", 150), ("--small-server-url", 200)])
def test_the_contract_holds(cluster: Any, settings: Any, tmp_path: Path, option: str, min_passed: int) -> None:
    if option == "--small-server-url":
        settings = {**settings, "model": small_model(tmp_path), "batch_store": tmp_path / "store"}
    cluster.deploy(**settings)

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contract",
        f"{option}={cluster.url}",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout[-20000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= min_passed
