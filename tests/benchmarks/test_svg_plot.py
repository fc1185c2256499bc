"""Plots: well-formed, and every figure where it belongs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from benchmarks.svg_plot import Line, Point, draw_plot, linear_axis, logarithmic_axis

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    Line(title="ours & <theirs>", points=[Point(x=1, y=100, low=90, high=110), Point(x=8, y=400, low=390, high=410)]),
    Line(title="another", points=[Point(x=1, y=50, low=50, high=50)]),
]


def texts(document: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(document).iter(f"{SVG}text")]


def test_a_plot_names_its_lines_its_axes_and_its_places() -> None:
    shown = texts(draw_plot("Rates", "clients", "tokens/s", LINES))

    assert {"Rates", "clients", "tokens/s", "ours & <theirs>", "another", "1", "8"} <= set(shown)


def test_every_point_lies_in_the_picture_and_higher_is_more() -> None:
    document = ET.fromstring(draw_plot("Rates", "clients", "tokens/s", LINES))
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in document.iter(f"{SVG}circle")]

    assert len(circles) == 3
    assert all(0 < across < 760 and 0 < down < 420 for across, down in circles)
    (first, second, other) = circles
    assert first[0] == other[0] < second[0]
    assert other[1] > first[1] > second[1]


def test_a_linear_axis_begins_at_zero_and_ends_on_a_round_number_above_all() -> None:
    axis = linear_axis("", [Point(x=1, y=3400, low=3000, high=3517)])

    assert axis.begin == axis.share(0) == 0
    assert axis.end >= 3517
    assert axis.ticks[-1] == axis.end == 4000
    assert axis.share(2000) == pytest.approx(0.5)


def test_a_logarithmic_axis_holds_all_points_and_gives_every_decade_the_same_room() -> None:
    axis = logarithmic_axis("", [Point(x=1, y=30, low=11, high=40), Point(x=2, y=900, low=800, high=1001)])

    assert axis.begin <= 11
    assert axis.end >= 1001
    assert axis.share(100) - axis.share(10) == pytest.approx(axis.share(1000) - axis.share(100))


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a point"):
        draw_plot("", "", "", [])
    with pytest.raises(ValueError, match="logarithm"):
        draw_plot("", "", "", [Line(title="", points=[Point(x=1, y=0, low=0, high=0)])], is_y_logarithmic=True)
