"""The committed golden values are what the installed `transformers` computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from make_golden import CASES, compute  # the script beside this file, which is no package

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.timeout(900)  # a minute on idle cores
@pytest.mark.parametrize("name", CASES)
def test_golden_values_are_those_of_transformers(name: str) -> None:
    _, files = compute(CASES[name])

    for file_name, numbers in (("golden.json", "logprobs"), ("beams.json", "scores")):
        golden = json.loads((GOLDEN / name / file_name).read_text())
        for ours, theirs in zip(golden, files[file_name], strict=True):
            # A beam's score is a sum in float32 of up to 300, where one step is 3e-5; processors round differently.
            assert ours.pop(numbers) == pytest.approx(theirs.pop(numbers), rel=1e-6, abs=1e-5)
            assert ours == theirs
