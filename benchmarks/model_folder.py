"""The benchmarks' default models: random weights, generated once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.report import RESULTS

FOLDER = RESULTS / "models" / "distilgpt2-shape"
COMPILED = RESULTS / "compiled"
"""Cache folder of the measured engines for compiled weights, separate from the user's cache."""
SHAPES: dict[str, dict[str, int]] = {
    "distilgpt2": {},
    "gpt2": {"layers": 12},
    "gpt2-medium": {"layers": 24, "heads": 16, "width": 1024},
}
"""82, 124 and 355 million weights: options of `make_model.py`."""
TINY_SHAPE = {"layers": 2, "heads": 2, "width": 32, "vocab": 384, "positions": 131072}


def prepare_model_folder(folder: Path | None) -> Path:
    """Return `folder`, or by default that of a model of DistilGPT-2's shape."""
    return folder or _make(FOLDER, {})


def prepare_shape_folder(name: str) -> Path:
    """Folder of a model of one of `SHAPES`."""
    return _make(FOLDER, {}) if name == "distilgpt2" else _make(RESULTS / "models" / f"{name}-shape", SHAPES[name])


def prepare_tiny_model_folder(folder: Path | None) -> Path:
    """Return `folder`, or by default that of a tiny model: cheap tokens, and streams that can last for minutes."""
    return folder or _make(RESULTS / "models" / "tiny", TINY_SHAPE)


def _make(folder: Path, shape: Mapping[str, int]) -> Path:
    if not (folder / "merges.txt").exists():  # the last file that is written
        print(f"making {folder} …", file=sys.stderr)
        program = Path(__file__).parent / "make_model.py"
        options = [f"--{name}={value}" for name, value in shape.items()]
        subprocess.run([sys.executable, str(program), str(folder), *options], check=True, stdout=subprocess.DEVNULL)
    return folder
