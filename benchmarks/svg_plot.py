"""Line plots as SVG, without a library: on a page of its own, light or dark as the reader has it.

Contract: x is laid out by its logarithm; y begins at zero unless logarithmic; each line shows its medians as points and
its ranges as bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 46, 50
COLOURS = ("#d1495b", "#2f7ed8", "#2a9d5c", "#b8860b", "#8e5bd0", "#1aa0a8", "#c2569f", "#7f7f7f", "#a0522d")
"""Of middling lightness: legible on white and on near-black."""
STYLE = """
  svg { font: 13px system-ui, sans-serif; }
  .page { fill: #ffffff; } text { fill: #1f2328; } .axis, .grid { stroke: #1f2328; } .grid { opacity: .15; }
  .line { fill: none; stroke-width: 2; } .range { stroke-width: 1.5; opacity: .6; } .title { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #16181d; } text { fill: #e6e6e6; } .axis, .grid { stroke: #e6e6e6; }
  }
"""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From one end in numbers to a place in pixels."""

    title: str
    begin: float
    end: float
    is_logarithmic: bool
    ticks: Sequence[float]

    def share(self, value: float) -> float:
        """0 at the axis's beginning, 1 at its end."""
        if self.is_logarithmic:
            return math.log(value / self.begin) / math.log(self.end / self.begin)
        return (value - self.begin) / (self.end - self.begin)


def draw_plot(title: str, x_title: str, y_title: str, lines: Sequence[Line], *, is_y_logarithmic: bool = False) -> str:
    """A whole SVG document. x is logarithmic, its ticks are the points' own. Raises ValueError without a point."""
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("a plot needs a point")
    places = sorted({point.x for point in points})
    margin = 1.15
    x = Axis(title=x_title, begin=places[0] / margin, end=places[-1] * margin, is_logarithmic=True, ticks=places)
    y = logarithmic_axis(y_title, points) if is_y_logarithmic else linear_axis(y_title, points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
        *_frame(x, y),
    ]
    for index, line in enumerate(lines):
        parts += _line(line, x, y, COLOURS[index % len(COLOURS)])
    parts += _legend(lines)
    return "\n".join([*parts, "</svg>"]) + "\n"


def linear_axis(title: str, points: Sequence[Point]) -> Axis:
    """From zero to a round number above the highest point, in four to eight round steps."""
    highest = max(point.high for point in points) or 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * factor for factor in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if highest / (power * factor) <= 8)
    num_steps = math.ceil(highest / step)
    ticks = [step * index for index in range(num_steps + 1)]
    return Axis(title=title, begin=0.0, end=ticks[-1], is_logarithmic=False, ticks=ticks)


def logarithmic_axis(title: str, points: Sequence[Point]) -> Axis:
    """Whole decades around all points, with 2 and 5 between them. Raises ValueError for what has no logarithm."""
    lowest, highest = min(point.low for point in points), max(point.high for point in points)
    if lowest <= 0:
        raise ValueError(f"{lowest} has no logarithm")
    steps = [factor * 10.0**power for power in range(-9, 12) for factor in (1, 2, 5)]
    begin = max(step for step in steps if step <= lowest)
    end = min(step for step in steps if step >= highest and step > begin)
    ticks = [step for step in steps if begin <= step <= end]
    return Axis(title=title, begin=begin, end=end, is_logarithmic=True, ticks=ticks)


def _across(x: Axis, value: float) -> float:
    return LEFT + x.share(value) * (WIDTH - LEFT - RIGHT)


def _down(y: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = (TOP + bottom) / 2
    parts = [
        f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x.title)}</text>',
        f'<text text-anchor="middle" transform="translate(18 {middle}) rotate(-90)">{escape(y.title)}</text>',
    ]
    parts += [
        f'<text x="{_across(x, tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>' for tick in x.ticks
    ]
    for tick in y.ticks:
        place = _down(y, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{place:.1f}" x2="{right}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{place + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return parts


def _line(line: Line, x: Axis, y: Axis, colour: str) -> list[str]:
    places = [(_across(x, point.x), _down(y, point.y)) for point in line.points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    parts = [f'<polyline class="line" stroke="{colour}" points="{path}"/>']
    for point, (across, down) in zip(line.points, places, strict=True):
        parts.append(
            f'<line class="range" stroke="{colour}" x1="{across:.1f}" x2="{across:.1f}" '
            f'y1="{_down(y, point.low):.1f}" y2="{_down(y, point.high):.1f}"/>'
        )
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3.5" fill="{colour}"/>')
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    """From the top in the order in which the lines end, so that the eye finds its line."""
    order = sorted(range(len(lines)), key=lambda index: -lines[index].points[-1].y if lines[index].points else 0)
    left = WIDTH - RIGHT + 16
    parts = []
    for row, index in enumerate(order):
        down = TOP + 10 + 22 * row
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<line class="line" stroke="{colour}" x1="{left}" y1="{down}" x2="{left + 20}" y2="{down}"/>')
        parts.append(f'<text x="{left + 28}" y="{down + 4}">{escape(lines[index].title)}</text>')
    return parts
