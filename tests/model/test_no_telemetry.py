"""The service sends nothing to anybody."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
import distilgpt2_api.engine.factory
assert "openvino" in sys.modules
assert sys.modules["openvino_telemetry"] is None
print([thread.name for thread in threading.enumerate()])
"""


def test_importing_the_kernels_starts_no_telemetry() -> None:
    """OpenVINO's own reports every import from a thread, which also holds up the end of a process without network."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "['MainThread']\n", result.stderr
