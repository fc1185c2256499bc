"""The kernels' memory is bounded: freed memory returns to the system, and few kernels are cached."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from pathlib import Path
from distilgpt2_api.model.kernels.process_memory import LARGE_BYTES, bound_kernel_memory

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

bound_kernel_memory()
np.ones(8 * LARGE_BYTES, np.int8)  # freed at once: glibc's own threshold would rise here
before = resident_bytes()
kept = []
for size in range(2 * LARGE_BYTES, 4 * LARGE_BYTES, LARGE_BYTES // 16):
    buffer = np.ones(size, np.int8)  # each larger than the last, which it replaces, with something small above it
    kept.append(bytes(2000))
    del buffer
assert resident_bytes() - before < LARGE_BYTES, resident_bytes() - before
"""


def test_buffers_that_grow_leave_no_holes() -> None:
    """In a separate process with a fresh heap."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
