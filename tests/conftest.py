"""The test process: its garbage collection, and the place of temporary files."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")
LEAST_BYTES = 4 << 30
"""Free memory that is enough for the temporary files of some runs."""

gc.disable()  # collections that scan imported modules would delay the start
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= LEAST_BYTES:
    # Databases wait for the disk at each commit.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    gc.enable()  # without gc.freeze(): plugins look for referrers, and those of frozen objects are not found
