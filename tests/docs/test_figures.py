"""Figures stand in docs/benchmarks.md: its summary agrees with its tables, and other pages only quote it."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest
from tests.docs.blocks import ROOT

BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
MEASURED = BENCHMARKS.partition("\n## Measured\n")[2]
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")
ELSEWHERE = {
    "`make bench-drafts`": (ROOT / "docs" / "decisions" / "0026-drafts.md").read_text(encoding="utf-8"),
}
"""Commands with results on another page."""
SUMMARY_ONLY = {"`make image-size`"}
"""Commands with results in the summary alone."""


def read_rows(page: str, heading: str) -> list[tuple[str, ...]]:
    """The cells of each row of the first table under the heading, without the table's header."""
    section = re.split(r"^## ", page.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def read_results(command: str) -> str:
    """The part of "Measured" that the command's paragraph begins, up to the next command's."""
    if command in ELSEWHERE:
        return ELSEWHERE[command]
    parts = re.split(r"^(?=`(?:make bench|python -m)|### )", MEASURED, flags=re.MULTILINE)
    return "".join(part for part in parts if part.startswith(command.rstrip("`")))


def is_measured(figure: str, results: str) -> bool:
    """Whether the figure is a number of the results, rounded to the figure's decimals."""
    exponent = Decimal(figure).as_tuple().exponent
    unit = Decimal(1).scaleb(int(exponent))
    return any(Decimal(number).quantize(unit, ROUND_HALF_UP) == Decimal(figure) for number in NUMBER.findall(results))


SUMMARY = read_rows(BENCHMARKS, "At a glance")


@pytest.mark.parametrize("row", SUMMARY, ids=lambda row: row[0])
def test_the_summary_agrees_with_the_measured_tables(row: tuple[str, str, str]) -> None:
    _, value, command = row
    figures = NUMBER.findall(value)
    assert figures
    if command not in SUMMARY_ONLY:
        results = read_results(command)
        assert [figure for figure in figures if not is_measured(figure, results)] == []


def test_the_readme_quotes_the_summary() -> None:
    quoted = read_rows((ROOT / "README.md").read_text(encoding="utf-8"), "Figures")
    assert len(quoted) > 2
    assert set(quoted) <= set(SUMMARY)


def test_the_page_on_precision_quotes_what_was_measured() -> None:
    quoted = read_rows((ROOT / "docs" / "precision.md").read_text(encoding="utf-8"), "What it costs")
    results = re.findall(r"^\| (\w+) +\| +([\d.]+) \| +[+\d.]+ % \| +([\d.]+) \|", MEASURED, re.MULTILINE)
    assert [(name.strip("`"), *figures) for name, *figures in quoted] == results
    assert len(results) == 3


def test_the_first_page_quotes_what_was_measured() -> None:
    rows = {
        name: (theirs, ours)
        for name, theirs, ours in read_rows(
            (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), "Why not `generate()` behind FastAPI?"
        )
    }
    results = read_results("`make bench-transformers`")
    medians = re.findall(
        r"^\| (\d+) +\| +(\d+) \(.*?\| +(\d+) \([\d-]+\) \| +[\d.]+ \([\d.-]+\) \|$", results, re.MULTILINE
    )
    theirs, ours = rows["Tokens/s at 1 / 8 / 32 sequences, same two cores"]
    assert [number for number, _, _ in medians] == ["1", "8", "32"]
    assert theirs == " / ".join(their for _, _, their in medians)
    assert ours.partition(" (")[0] == " / ".join(our for _, our, _ in medians)
    (size,) = (value for _, value, command in SUMMARY if command == "`make image-size`")
    image = next(ours for name, (_, ours) in rows.items() if name.startswith("Image with"))
    assert image.partition(" (")[0] == size
