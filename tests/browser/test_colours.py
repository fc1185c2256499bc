"""The playground in a real browser: colours and lines as they are painted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from tests.browser.conftest import channels

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@SCHEMES
def test_likelihood_differs_in_lightness_and_has_a_second_sign(page: Any, storyteller: Any, scheme: str) -> None:
    """Hue alone would be lost on many readers. Underlines show it without any colour."""
    page.emulate(scheme=scheme)
    page.open(storyteller)
    page.set(max_tokens=60, seed=4, temperature=1.2)
    page.generate()
    tokens = page.run("""
        const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const card = getComputedStyle(document.querySelector(".answer")).backgroundColor;
        return [...document.querySelectorAll(".rated")].map((node) => {
            const style = getComputedStyle(node);
            for (const colour of [card, style.backgroundColor]) {
                paint.fillStyle = colour;
                paint.fillRect(0, 0, 1, 1);
            }
            const likelihood = parseFloat(node.getAttribute("aria-label").split(", ").at(-1).replace("< ", ""));
            const sign = style.textDecorationLine + " " + style.textDecorationStyle;
            return [likelihood, [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3), sign];
        });
    """)
    likely = [luminance(colour) for likelihood, colour, _ in tokens if likelihood > 80]
    rare = [luminance(colour) for likelihood, colour, _ in tokens if likelihood < 0.5]
    assert likely
    assert rare
    for one in likely:
        for other in rare:
            assert (max(one, other) + 0.05) / (min(one, other) + 0.05) > 1.3
    for likelihood, _, sign in tokens:
        if likelihood < 0.99:
            assert sign == "underline double"
        elif 1.01 < likelihood < 9.9:
            assert sign == "underline solid"
        elif likelihood > 10.1:
            assert sign.startswith("none")


NARROW = "It's a cat, isn't it? I'll go; 'tis the . ! i l | king: he said, \"Oh.\" In ill will, I will."


@SCHEMES
@pytest.mark.reported("a reader of the playground: below a comma, a dotted line looks like a solid one")
def test_the_underlines_of_narrow_tokens_differ(page: Any, storyteller: Any, scheme: str) -> None:
    """In number, as painted in a token's middle: two lines below 1 %, one below 10 %, else none."""
    page.emulate(scheme=scheme)
    page.open(storyteller)
    page.click("#tab-score")
    page.fill("#score-text", NARROW)
    page.click("#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    tokens = page.run("""
        return [...document.querySelectorAll("#score-result .token")].map((node) => {
            const { left, bottom, width } = node.getBoundingClientRect();
            const sign = ["rare", "unlikely"].find((name) => node.classList.contains(name)) ?? "none";
            return { sign, width, x: left + width / 2, bottom };
        });
    """)
    colour = page.one("#score-result .rare").value_of_css_property("text-decoration-color")
    narrow = [token for token in tokens if token["width"] < 7]
    assert {token["sign"] for token in narrow} == {"rare", "unlikely", "none"}
    rows = range(-4, 8)
    pixels = iter(page.pixels([(token["x"], token["bottom"] + row) for token in narrow for row in rows]))
    for token in narrow:
        is_line = [math.dist(next(pixels), channels(colour)) < 60 for _ in rows]
        num_lines = sum(one and not before for before, one in pairwise([False, *is_line]))
        assert num_lines == {"rare": 2, "unlikely": 1, "none": 0}[token["sign"]], token


DIMMED = """
    const [x, y] = [document.documentElement.clientWidth, innerHeight - 3];
    return [[8, y], [x - 8, y], [innerWidth - 3, y], [innerWidth - 3, 100]];
"""


@SCHEMES
@pytest.mark.parametrize("length", [10, 1500])
@pytest.mark.reported("a reader of the playground: a strip at the right edge stays bright behind a dialog")
def test_a_dialog_dims_the_whole_page_and_moves_nothing(page: Any, storyteller: Any, scheme: str, length: int) -> None:
    """Also the place of a scrollbar, with one and without one."""
    page.emulate(scheme=scheme)
    page.open(storyteller)
    page.run("document.querySelector('#answers-empty').textContent = 'word '.repeat(arguments[0])", length)
    page.run("scrollTo({ top: 200, behavior: 'instant' })")
    edges = "return [...document.querySelectorAll('#views, #side')].flatMap((node) => {"
    edges += " const { left, right, top } = node.getBoundingClientRect(); return [left, right, top] })"
    before = page.run(edges)
    page.run("document.querySelector('#show-code').click()")
    assert page.run(edges) == before
    dimmed = page.pixels(page.run(DIMMED))
    bright = page.background
    for pixel in dimmed:
        assert math.dist(pixel, dimmed[0]) < 3
        assert math.dist(pixel, bright) > 5
    page.run("document.querySelector('#code .close').click()")
    assert page.run(edges) == before


@SCHEMES
@pytest.mark.reported("a reader of the playground: with high contrast, all tabs look selected and no token does")
def test_high_contrast_shows_what_is_selected(page: Any, storyteller: Any, scheme: str) -> None:
    """It leaves out backgrounds and shadows. Lines show tabs, presets, tokens and the main buttons."""
    page.emulate(scheme=scheme, is_high_contrast=True)
    page.open(storyteller)
    page.set(max_tokens=5)
    page.generate()
    page.run("document.querySelectorAll('.token')[2].click()")
    looks = """
        const [selector, name] = arguments;
        return [...document.querySelectorAll(selector)].map((node) => getComputedStyle(node)[name]);
    """
    back = page.run(looks, "body", "backgroundColor")
    write, *others = page.run(looks, "#views button", "borderBottomColor")
    assert write not in {*back, *others}
    assert set(others) == set(back)
    balanced, *others = page.run(looks, ".chip span", "borderTopWidth")
    assert balanced == "3px"
    assert set(others) == {"1px"}
    assert page.run(looks, ".answer .token", "outlineStyle") == ["none", "none", "solid", "none", "none"]
    assert set(page.run(looks, ".primary", "borderTopStyle")) == {"solid"}


def luminance(colour: list[int]) -> float:
    """Relative luminance as in WCAG 2."""
    channels = [value / 255 for value in colour]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
