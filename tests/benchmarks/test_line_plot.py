"""Plots: well-formed, the same every time, and every figure where it belongs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from benchmarks.line_plot import Line, Point, build_figure, draw_plot

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    Line(title="ours & <theirs>", points=[Point(x=1, y=100, low=90, high=110), Point(x=8, y=400, low=390, high=410)]),
    Line(title="another", points=[Point(x=1, y=50, low=50, high=50)]),
]


def test_a_plot_names_its_lines_its_axes_and_its_x_values() -> None:
    document = ET.fromstring(draw_plot("Rates", "clients", "tokens/s", LINES))
    shown = {element.text for element in document.iter(f"{SVG}text")}

    assert {"Rates", "clients", "tokens/s", "ours & <theirs>", "another", "1", "8"} <= shown


def test_the_same_data_gives_the_same_file() -> None:
    assert draw_plot("Rates", "clients", "tokens/s", LINES) == draw_plot("Rates", "clients", "tokens/s", LINES)


def test_every_point_is_inside_the_axes_and_a_larger_value_is_higher() -> None:
    [axes] = build_figure("Rates", "clients", "tokens/s", LINES).axes
    pixels = [tuple(axes.transData.transform((p.x, p.y))) for line in LINES for p in line.points]

    assert all(axes.bbox.contains(*place) for place in pixels)
    (first, second, other) = pixels
    assert first[0] == other[0] < second[0]
    assert other[1] < first[1] < second[1]


def test_a_linear_axis_starts_at_zero_and_ends_above_the_highest_range() -> None:
    lines = [Line(title="ours", points=[Point(x=1, y=3400, low=3000, high=3517)])]
    bottom, top = build_figure("", "", "", lines).axes[0].get_ylim()

    assert bottom == 0
    assert 3517 <= top < 4000


def test_a_logarithmic_axis_holds_all_ranges_and_gives_every_decade_the_same_height() -> None:
    lines = [Line(title="ours", points=[Point(x=1, y=30, low=11, high=40), Point(x=2, y=900, low=800, high=1001)])]
    [axes] = build_figure("", "", "", lines, is_y_logarithmic=True).axes
    bottom, top = axes.get_ylim()
    (_, ten), (_, hundred), (_, thousand) = (axes.transData.transform((1, y)) for y in (10, 100, 1000))

    assert bottom <= 11
    assert top >= 1001
    assert hundred - ten == pytest.approx(thousand - hundred)


def test_data_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a point"):
        draw_plot("", "", "", [])
    with pytest.raises(ValueError, match="logarithm"):
        draw_plot("", "", "", [Line(title="ours", points=[Point(x=1, y=0, low=0, high=0)])], is_y_logarithmic=True)
