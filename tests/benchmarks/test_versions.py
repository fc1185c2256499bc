"""Tests that the comparison of two checkouts divides the seconds of the same loads."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from benchmarks.versions import CASES, count_tokens, measure_seconds

from benchmarks import versions

ENGINE = """#!{python}
import json, os, sys
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
num_sequences, num_new_tokens = int(options["--sequences"]), int(options["--new-tokens"])
seconds = num_sequences * (int(options["--prompt-tokens"]) * 0.001 + num_new_tokens * {seconds_per_token})
seconds *= 2 if options.get("--kernels") == "avx2" else 1
runs = [{{"engine_rate": num_sequences * num_new_tokens / seconds / slowdown}} for slowdown in (2, 1, 3)]
with open("results.json", "w") as file:
    json.dump({{"results": {{"ours " + str(num_sequences): runs}}}}, file)
print("written: " + os.path.abspath("results.json"))
"""
"""Stands for a checkout's `benchmarks.engine`: a millisecond for each token of a prompt, two with AVX2."""


def make_checkout(folder: Path, seconds_per_token: float) -> Path:
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ENGINE.format(python=sys.executable, seconds_per_token=seconds_per_token))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_best_run_counts(case: versions.Case, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path, 0.01)

    seconds = measure_seconds(checkout, {"--model": str(tmp_path)}, case)

    prefill_s = 0.0 if case.is_without_prefill else case.num_prompt_tokens * 0.001
    num_new_tokens = case.num_new_tokens - case.is_without_prefill
    assert seconds == pytest.approx(case.num_sequences * (prefill_s + num_new_tokens * 0.01))
    assert count_tokens(case) == (num_new_tokens if case.num_new_tokens > 1 else case.num_prompt_tokens)


def table_of(printed: str) -> dict[str, str]:
    """The last column by the first one."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    return {row[0]: row[-1] for row in rows[2:]}


def test_ratio_is_printed_for_each_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = make_checkout(tmp_path / "there", 0.03), make_checkout(tmp_path / "here", 0.01)
    monkeypatch.setattr(versions, "HERE", here)
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)

    versions.main([str(there), "--model", str(tmp_path), "--repeats", "1", "--beside", "1"])

    printed = capsys.readouterr().out
    assert "beside 1 busy processes" in printed
    rows = table_of(printed)
    assert rows["32 sequences, 900 tokens of context"] == "3.00 (3.00-3.00)"
    (written,) = tmp_path.glob("versions-*.json")
    assert len(json.loads(written.read_text())["seconds"]) == 2 * len(CASES)


def test_chosen_lines_and_instruction_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = make_checkout(tmp_path / "there", 0.03), make_checkout(tmp_path / "here", 0.01)
    monkeypatch.setattr(versions, "HERE", here)
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)

    versions.main([str(there), "--model", str(tmp_path), "--repeats", "1", "--kernels", "avx2", "--lines", "5", "6"])

    assert table_of(capsys.readouterr().out) == {
        "32 sequences, 900 tokens of context": "1.50 (1.50-1.50)",
        "prefill of 256 tokens": "0.54 (0.54-0.54)",
    }
