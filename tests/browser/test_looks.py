"""The playground in a real browser: both colour schemes, wide and narrow windows, and accessibility."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_looks_and_accessibility(page: Any, storyteller: Any, scheme: str, width: int) -> None:
    """axe-core checks contrast, names and roles with completions, alternatives, dialogs and an error on the page. A
    narrow screen needs no horizontal scrolling.
    """
    page.emulate(scheme=scheme, width=width, height=844)
    page.open(storyteller)
    assert (sum(map(int, page.background[4:-1].split(","))) < 200) is (scheme == "dark")
    page.set(n=2, max_tokens=30, seed=4, stop="e")
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.violations() == []
    page.generate()
    page.run("document.querySelector('.token').click()")
    page.see(lambda: page.run("return document.getAnimations().length === 0"), "it is all there")
    assert page.one("#alternatives").is_displayed()
    assert page.violations() == []
    assert_fits(page)
    page.run("document.querySelector('#show-code').click()")
    assert page.violations() == []
    page.run("document.querySelector('#code .close').click()")
    page.run("document.querySelector('#tab-score').click(); document.querySelector('#score-run').click()")
    page.see(lambda: page.all("#score-result .token"), "the score")
    assert page.violations() == []
    assert_fits(page)
    page.run("document.querySelector('#tab-write').click()")
    page.set(top_p=5)
    page.run("document.querySelector('#generate').click()")
    page.see(lambda: page.all(".notice"), "the error")
    assert page.violations() == []
    assert_fits(page)
    page.errors()


def assert_fits(page: Any) -> None:
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_scheme_can_be_chosen_and_is_remembered(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    light = page.background
    page.click("#theme")
    dark = page.background
    assert light != dark
    page.open(storyteller)
    assert page.background == dark
