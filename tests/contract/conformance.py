"""Requests made by schemathesis from the server's own OpenAPI document, right ones and wrong ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Service

FOLDER = Path(__file__).parent
NUM_POSITIONS = 128
"""Of the model that such requests are made to."""


def run_schemathesis(server: Service, folder: Path, *, max_examples: int, seed: int) -> int:
    """How many requests were made: every check, positive and negative, stateful. AssertionError where one fails.

    `folder` gets what the program leaves behind.
    """
    program, config = Path(sys.executable).with_name("schemathesis"), FOLDER / "schemathesis.toml"
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(FOLDER / "schemathesis_hooks.py"), "NO_COLOR": "1"}
    command = [str(program), "--config-file", str(config), "run", "--continue-on-failure"]
    command += ["--max-examples", str(max_examples), "--seed", str(seed), f"{server.url}/openapi.json"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    count = re.search(r"(\d+) generated", result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert count is not None, result.stdout
    return int(count[1])
