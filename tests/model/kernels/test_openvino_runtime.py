"""Importing OpenVINO imports only its runtime; the rest stays available."""

from __future__ import annotations

import subprocess
import sys

import pytest

TELEMETRY = """
import sys, threading
import distilgpt2_api.engine.factory
assert "openvino" in sys.modules
assert sys.modules["openvino_telemetry"] is None
print([thread.name for thread in threading.enumerate()])
"""
CONVERTER = """
import sys
import distilgpt2_api.engine.factory
assert "openvino.tools.ovc" not in sys.modules
import openvino
from openvino import convert_model
print(callable(openvino.convert_model), hasattr(openvino, "nothing_of_the_kind"))
"""
WHOLE_BEFORE = """
import sys
sys.modules["openvino_telemetry"] = None
import openvino
import distilgpt2_api.engine.factory
print(callable(openvino.convert_model))
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [
        pytest.param(TELEMETRY, "['MainThread']\n", id="it sends no telemetry"),
        pytest.param(CONVERTER, "True False\n", id="the converter is not imported, and can be"),
        pytest.param(WHOLE_BEFORE, "True\n", id="an earlier import stays complete"),
    ],
)
def test_only_the_runtime_is_imported(program: str, output: str) -> None:
    """OpenVINO's telemetry reports every import from a thread, which delays the exit of a process without network."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == output, result.stderr
