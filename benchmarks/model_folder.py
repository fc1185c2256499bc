"""The model that is measured when none is named: DistilGPT-2's shape, random weights, made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.report import RESULTS

FOLDER = RESULTS / "models" / "distilgpt2-shape"
COMPILED = RESULTS / "compiled"
"""Where the measured engines keep compiled weights: not among the user's own."""


def prepare_model_folder(folder: Path | None) -> Path:
    """`folder` itself, or the made-up model's."""
    if folder is not None:
        return folder
    if not (FOLDER / "merges.txt").exists():  # the last file that is written
        print(f"making {FOLDER} …", file=sys.stderr)
        program = Path(__file__).parent / "make_model.py"
        subprocess.run([sys.executable, str(program), str(FOLDER)], check=True, stdout=subprocess.DEVNULL)
    return FOLDER
