"""Line plots as SVG: medians as points, ranges as bars. The same data gives the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    title: str
    points: Sequence[Point]


def draw_plot(title: str, x_title: str, y_title: str, lines: Sequence[Line], *, is_y_logarithmic: bool = False) -> str:
    """A complete SVG document: `build_figure`, written."""
    # Text stays text; without a salt, element ids are random.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distilgpt2-api"}):
        document = StringIO()
        build_figure(title, x_title, y_title, lines, is_y_logarithmic=is_y_logarithmic).savefig(
            document, format="svg", bbox_inches="tight", metadata={"Title": title, "Date": None}
        )
    return document.getvalue()


def build_figure(
    title: str, x_title: str, y_title: str, lines: Sequence[Line], *, is_y_logarithmic: bool = False
) -> Figure:
    """X is logarithmic, with a tick at each point; y starts at zero unless logarithmic.

    Raises ValueError if there is no point, or one that a logarithmic axis can't show.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("a plot needs a point")
    if is_y_logarithmic and (lowest := min(point.low for point in points)) <= 0:
        raise ValueError(f"{lowest} has no logarithm")
    figure = Figure(figsize=(7.6, 4.2))
    axes = figure.add_subplot(title=title, xlabel=x_title, ylabel=y_title, xscale="log")
    # The legend lists lines in the order in which they end, so that the eye finds its line.
    for line in sorted(lines, key=lambda line: -line.points[-1].y if line.points else 0):
        x, y = [point.x for point in line.points], [point.y for point in line.points]
        ranges = [[p.y - p.low for p in line.points], [p.high - p.y for p in line.points]]
        axes.errorbar(x, y, yerr=ranges, label=line.title, color=f"C{lines.index(line)}", marker="o", markersize=4)
    xs = sorted({point.x for point in points})
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    if is_y_logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(10, 10)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    return figure
