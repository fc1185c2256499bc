"""The benchmarks' printed figures."""

from __future__ import annotations

import pytest
from benchmarks.report import Spread, percentile, print_table, repeat_interleaved


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentile_is_the_smallest_value_that_n_percent_do_not_exceed(percent: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), percent) == expected


def test_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([3.0], 99) == 3.0
    assert percentile([3.0, 1.0], 50) == 1.0


def test_spread_shows_the_median_and_the_range() -> None:
    assert f"{Spread.of([3.0, 1.0, 2.26]):.1f}" == "2.3 (1.0-3.0)"


def test_repeats_alternate() -> None:
    """So that other load on the machine affects all sides alike."""
    calls: list[str] = []
    results = repeat_interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert results == {"a": [None, None], "b": [None, None]}


def test_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["what", "ms"], [["body", 3.5], ["head", 12]])
    assert capsys.readouterr().out == "| what |  ms |\n| ---- | --: |\n| body | 3.5 |\n| head |  12 |\n\n"
