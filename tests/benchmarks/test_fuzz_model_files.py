"""Randomly corrupted files: the short form of `make bench-fuzz-models`."""

from __future__ import annotations

import pytest
from benchmarks.reliability.fuzz_model_files import fuzz


def test_corrupted_model_files_are_loaded_or_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """No crash, no hang, no memory for wrong sizes, no error except a one-line ModelError."""
    tally = fuzz(range(1_000_000, 1_000_150), num_workers=1)

    tally.print()
    assert not tally.failures, capsys.readouterr().out
    assert len(tally.outcomes) == 150
    assert {"loaded", "ModelFormatError"} <= {outcome.verdict for outcome in tally.outcomes}
