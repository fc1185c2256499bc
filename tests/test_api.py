"""What importing the application leaves behind in its process."""

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


def test_a_collection_does_not_look_through_what_stays_for_good() -> None:
    """It would hold up every stream, on both threads, for as long as it looks."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts["frozen"] > 10 * counts["tracked"]
