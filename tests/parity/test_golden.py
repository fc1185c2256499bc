"""The committed golden values are what the installed `transformers` computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from make_golden import CASES, compute  # the script beside this file, which is no package

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("name", CASES)
def test_golden_values_are_those_of_transformers(name: str) -> None:
    _, completions = compute(CASES[name])
    golden = json.loads((GOLDEN / name / "golden.json").read_text())

    for ours, theirs in zip(golden, completions, strict=True):
        assert ours["prompt"] == theirs["prompt"]
        assert ours["completion"] == theirs["completion"]
        assert ours["logprobs"] == pytest.approx(theirs["logprobs"], abs=1e-5)
