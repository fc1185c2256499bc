"""The state of a process after it imported the application."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json
import distilgpt2_api.api
gc.collect()
print(json.dumps({"tracked": len(gc.get_objects()), "frozen": gc.get_freeze_count()}))
"""


def test_garbage_collection_skips_the_imported_modules() -> None:
    """Scanning them would stall every stream, on both threads."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts["frozen"] > 10 * counts["tracked"]
