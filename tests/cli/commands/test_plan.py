"""`plan`: from a load and a node's curve to nodes, times and cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LOAD = ("plan", "--qps", "100", "--tokens", "128")


def test_the_plan_names_its_curve_and_the_number_of_nodes(invoke: Any) -> None:
    result = invoke(*LOAD, "--price", "0.1", "--spare-nodes", "2")
    assert result.exit_code == 0, result.output
    title, *rows = result.stdout.splitlines()
    assert "int8, measured on " in title
    names = [row[:12].strip() for row in rows]
    assert names == [
        *("nodes", "utilisation", "tokens", "running", "waiting", "queue time", "TTFT", "TPOT", "end to end", "cost")
    ]
    assert rows[0].endswith(", and 2 spare")
    assert "12800 completion tokens/s" in rows[2]


def test_json_has_the_same_figures(invoke: Any) -> None:
    page = invoke(*LOAD).stdout
    plan = json.loads(invoke(*LOAD, "--format", "json").stdout)
    assert f"{'nodes':<13}{plan['num_nodes']}\n" in page
    assert f"{plan['node']['ttft_percentile_ms']:.0f} ms p99" in page
    assert plan["curve"].keys() == {"model", "precision", "measured_on"}
    assert plan["completion_tokens_per_s"] == pytest.approx(12800)
    assert "cost_per_million_tokens" not in plan


@pytest.mark.parametrize(
    ("options", "has_more"),
    [
        (["--tokens", "256"], True),
        (["--prompt-tokens", "256"], True),
        (["--prompt-tokens", "256", "--cached-share", "1"], False),
        (["--max-utilisation", "0.3"], True),
        (["--max-utilisation", "0.99"], False),
        (["--max-ttft-ms", "25"], True),
        (["--max-tpot-ms", "8"], True),
        (["--max-tpot-ms", "8", "--percentile", "50"], True),
    ],
)
def test_each_option_changes_the_plan(options: list[str], has_more: bool, invoke: Any) -> None:
    usual = json.loads(invoke(*LOAD, "--format", "json").stdout)
    changed = json.loads(invoke(*LOAD, "--format", "json", *options).stdout)
    assert (changed["num_nodes"] > usual["num_nodes"]) is has_more
    assert changed != usual


def test_a_machine_is_measured_saved_and_used_for_a_plan(
    tiny_model: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names that clients see."""
    monkeypatch.setenv("DISTILGPT2_SERVED_MODEL_NAMES", "stories,tales")
    path = tmp_path / "curve.json"
    load = ("plan", "--qps", "5", "--tokens", "8", "--prompt-tokens", "8", "--format", "json")
    result = invoke(*load, "--measure", "--save", str(path), "--model", str(tiny_model), "--precision", "f32")
    assert result.exit_code == 0, result.output
    curve = json.loads(path.read_text())
    assert (curve["model"], curve["precision"], curve["num_positions"]) == ("stories, tales", "f32", 64)
    assert " threads of " in curve["measured_on"]
    assert curve["decode_steps"][-1]["num_sequences"] == 64
    assert json.loads(invoke(*load, "--measured", str(path)).stdout) == json.loads(result.stdout)


def test_nothing_is_measured_by_default(tmp_path: Path, invoke: Any) -> None:
    """The plan needs no model and is fast."""
    assert invoke(*LOAD).exit_code == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qps", "0"], "'--qps': 0.0 is not in the range 0<x<=1000000000"),
        (["--qps", "nan"], "'--qps': nan is not in the range"),
        (["--tokens", "0"], "'--tokens': 0 is not in the range 1<=x<=1048576"),
        (["--prompt-tokens", "0"], "'--prompt-tokens': 0 is not in the range"),
        (["--cached-share", "1.1"], "'--cached-share': 1.1 is not in the range 0<=x<=1"),
        (["--max-utilisation", "1"], "'--max-utilisation': 1.0 is not in the range 0<x<1"),
        (["--percentile", "100"], "'--percentile': 100.0 is not in the range 50<=x<=99.99"),
        (["--max-ttft-ms", "0"], "'--max-ttft-ms': 0.0 is not in the range"),
        (["--max-tpot-ms", "-1"], "'--max-tpot-ms': -1.0 is not in the range"),
        (["--spare-nodes", "-1"], "'--spare-nodes': -1 is not in the range"),
        (["--price", "inf"], "'--price': inf is not in the range"),
        (["--measured", "nowhere.json"], "'nowhere.json' does not exist"),
        (["--save", "x.json"], "--save, --model, --precision and --num-threads need --measure"),
        (["--model", "x"], "--save, --model, --precision and --num-threads need --measure"),
        (["--measure", "--measured", __file__], "--measured and --measure exclude each other"),
    ],
)
def test_an_invalid_option_is_named_with_its_limit(options: list[str], message: str, invoke: Any) -> None:
    result = invoke(*LOAD, *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--measured", __file__], "is not valid JSON"),
        (["--tokens", "2000"], "prompt and completion of 2032 tokens: "),
        (["--max-ttft-ms", "1"], "max_ttft_ms of 1 can't be met: an idle node takes "),
        (["--qps", "1e9"], "needs more than 1000000 nodes"),
    ],
)
def test_an_impossible_plan_is_one_line(options: list[str], message: str, invoke: Any) -> None:
    result = invoke(*LOAD, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
