"""The tables of docs/scale.md equal the output of `plan`."""

from __future__ import annotations

import re

from click.testing import CliRunner
from tests.docs.blocks import ROOT

from distilgpt2_api.cli import main

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def plan(*options: str) -> dict[str, str]:
    """The plan for 1000 requests a second: values by name."""
    result = CliRunner().invoke(main, ["plan", "--qps", "1000", *options])
    assert result.exit_code == 0, result.output
    return {line[:13].strip(): line[13:] for line in result.stdout.splitlines()[1:]}


def test_the_loads_equal_the_plan() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 4
    for prompt, completion, cached, nodes, running, p50, p99, cost in rows:
        figures = plan(
            *("--prompt-tokens", prompt, "--tokens", completion, "--cached-share", cached, "--price", "0.10")
        )
        assert figures["nodes"] == nodes
        assert figures["running"].startswith(f"{running} sequences")
        assert figures["TTFT"] == f"{p50} ms p50, {p99} ms p99"
        assert figures["cost"].startswith(f"{cost} ")


def test_the_tiers_equal_the_plan() -> None:
    rows = re.findall(r"^\| [^|]+ \| (0\.\d+) \| (0\.\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for price, cost in rows:
        assert plan("--tokens", "128", "--price", price)["cost"].startswith(f"{cost} ")
