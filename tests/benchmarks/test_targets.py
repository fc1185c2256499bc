"""The comparison of two instruction sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.targets import main
from tests.e2e.conftest import write_model

from distilgpt2_api.model.kernels.library import find_targets


def test_each_case_has_the_times_of_both_instruction_sets_and_their_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [find_targets()[0], find_targets()[-1]]
    folder = str(write_model(tmp_path, num_positions=128))

    main([folder, "--kernels", *targets, "--sequences", "2", "--prompts", "40", "--seconds", "0.01"])

    lines = capsys.readouterr().out.splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert header == ["", *targets, f"{targets[1]} / {targets[0]}"]
    assert [row[0] for row in rows] == ["2 sequences", "prompt of 40", "score 40"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
