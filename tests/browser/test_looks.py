"""The playground in a real browser: both colour schemes, wide and narrow windows, and accessibility."""

from __future__ import annotations

import re
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
WIDTHS = pytest.mark.parametrize("width", [1280, 390])


@SCHEMES
@WIDTHS
def test_looks_and_accessibility(page: Any, chatty: Any, scheme: str, width: int) -> None:
    """axe-core checks contrast, names and roles of every view, dialog and error. A narrow screen needs no horizontal
    scrolling.
    """
    page.emulate(scheme=scheme, width=width, height=844)
    page.open(chatty)
    assert (sum(page.background) < 200) is (scheme == "dark")
    page.set(n=2, max_tokens=30, seed=4, stop="e")
    check(page)
    for panel in ("settings", "history", "service"):
        page.show_panel(panel)
        page.run("for (const one of document.querySelectorAll('details')) one.open = true")
        check(page)
    page.run("document.querySelector('#side').hidePopover()")
    press(page, "#generate")
    page.see(page.is_done, "the answers")
    press(page, ".answer .pin")
    press(page, ".run .pin")
    check(page)
    page.run("document.querySelectorAll('#pinned .token')[2].click()")
    page.see(lambda: page.one("#alternatives").is_displayed(), "the alternatives")
    check(page)
    press(page, "#show-code")
    check(page)
    press(page, "#code .close")
    press(page, "#tab-score")
    press(page, "#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    check(page)
    press(page, "#tab-chat")
    check(page)
    page.one("#chat-input").send_keys("Once upon a time", Keys.ENTER)
    page.see(lambda: page.all("#chat .answer:not(.running)"), "the answer")
    check(page)
    press(page, "#tab-batch")
    check(page)
    press(page, "#tab-write")
    page.set(top_p=5)
    press(page, "#generate")
    page.see(lambda: page.visible(".field-error"), "the error")
    check(page)


def press(page: Any, selector: str) -> None:
    """Click the element, even if the emulated screen does not show it."""
    page.run("document.querySelector(arguments[0]).click()", selector)


def check(page: Any) -> None:
    page.see(lambda: page.run("return document.getAnimations().length === 0"), "it is all there")
    assert page.violations() == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_targets_on_a_phone_are_large(page: Any, chatty: Any) -> None:
    """At least 40 px high and 24 px wide: all that one can press, except tokens within text."""
    page.emulate(width=390, height=844)
    page.open(chatty)
    page.set(max_tokens=10)
    press(page, "#generate")
    page.see(page.is_done, "the answer")
    page.run("document.querySelector('.answer .token').click()")
    small = """
        const targets = document.querySelectorAll("button, a:not(.skip), summary, label:has(input), .toggle label, "
            + "input:not(label input, [type=checkbox]), textarea");
        return [...targets].filter((node) => node.checkVisibility() && !node.closest(".unseen")).filter((node) => {
            const { width, height } = node.getBoundingClientRect();
            return height < 40 || width < 24;
        }).map((node) => node.outerHTML.slice(0, 90)).filter((html) => !html.includes('type="range"'));
    """
    assert page.run(small) == []
    press(page, "#alternatives .close")
    assert not page.one("#alternatives").is_displayed()
    for panel in ("settings", "history", "service"):
        page.show_panel(panel)
        page.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.run(small) == []
    press(page, "#side .close")
    for view in ("chat", "score", "batch"):
        press(page, f"#tab-{view}")
        assert page.run(small) == []


@WIDTHS
def test_the_first_screen_is_for_writing(page: Any, storyteller: Any, width: int) -> None:
    """Figures for operators, the history and the settings are one step away, and do not push the prompt down."""
    page.emulate(width=width, height=844)
    page.open(storyteller)
    assert page.one("#prompt").rect["y"] < 200
    assert page.one("#generate").is_displayed()
    assert page.one("#generate").rect["y"] < 500
    assert not page.visible("#live-rate")
    assert page.text("#preset-help") == "Sensible and varied."
    page.click(".chip:has([value=Wild]) span")
    assert page.text("#preset-help") == "Very varied, and often strange."
    page.set(top_k=3)
    assert page.text("#preset-help") == "Your own settings."
    if width < 600:
        assert not page.visible("#side")
        page.click("nav .narrow")
    page.see(lambda: page.run("return document.getAnimations().length === 0"), "it is all there")
    bottom = page.run("return document.querySelector('#side').getBoundingClientRect().bottom")
    assert bottom <= 844, "the panel's tabs and contents are on the screen"
    for tab, content in (("history", "#history-empty"), ("service", "#live-rate"), ("settings", "#set-temperature")):
        page.click(f"#tab-{tab}")
        assert page.visible(content)
    page.click(".group:last-child summary")
    page.run("document.querySelector('#set-temperature').focus()")
    if width < 600:
        page.click("#side .close")
        assert not page.visible("#side")


@pytest.mark.reported("a reader of the playground: two scrollbars beside each other, one of them across a round corner")
def test_an_empty_page_scrolls_only_in_its_panel(page: Any, storyteller: Any) -> None:
    """The panel's tabs stay, and the scrollbar of its contents keeps off the panel's round corners."""
    page.emulate(width=1400, height=857)
    page.open(storyteller)
    page.run("for (const one of document.querySelectorAll('#settings details')) one.open = true")
    scrolling = """
        return [...document.querySelectorAll("html, body, #side, #side > section")]
            .filter((node) => node.scrollHeight > node.clientHeight).map((node) => node.id || node.tagName);
    """
    assert page.run(scrolling) == ["settings-panel"]
    panel, contents = (page.one(selector).rect for selector in ("#side", "#settings-panel"))
    radius = float(page.one("#side").value_of_css_property("border-radius").removesuffix("px"))
    assert contents["y"] - panel["y"] > radius
    assert panel["y"] + panel["height"] - contents["y"] - contents["height"] > radius


@pytest.mark.reported("a reader of the playground: a focus ring on the next button, and Cancel in large letters")
def test_buttons_side_by_side_match(page: Any, storyteller: Any) -> None:
    """A focus ring leaves the next button free, and what dismisses is not larger than what confirms."""
    page.open(storyteller)
    ring, gap = page.run("""
        const code = document.querySelector("#show-code");
        code.focus({ focusVisible: true });
        const { outlineOffset, outlineWidth } = getComputedStyle(code);
        const next = document.querySelector("#generate").getBoundingClientRect();
        const gap = next.left - code.getBoundingClientRect().right;
        return [parseFloat(outlineOffset) + parseFloat(outlineWidth), gap];
    """)
    assert 0 < ring <= gap - 1
    page.run("document.querySelector('#key-dialog').showModal()")
    sizes = [
        float(node.value_of_css_property("font-size").removesuffix("px")) for node in page.all("#key-dialog .go *")
    ]
    assert sizes[0] <= sizes[1]


@pytest.mark.reported(
    "a reader of the playground: on a phone, the sheet of alternatives covers the token that was tapped"
)
def test_a_sheet_of_alternatives_leaves_its_token_in_sight(page: Any, storyteller: Any) -> None:
    """Also the last token of the page's last answer. Closed, it leaves no space behind."""
    page.emulate(width=390, height=844)
    page.open(storyteller)
    page.set(max_tokens=120, seed=5)
    page.generate()
    height = page.run("return document.documentElement.scrollHeight")
    page.run("const [last] = [...document.querySelectorAll('.token')].slice(-1); last.scrollIntoView(); last.click()")
    page.see(lambda: page.visible("#alternatives"), "the sheet")
    gap = """
        const token = document.querySelector(".token[aria-selected=true]").getBoundingClientRect();
        return token.top > 0 && document.querySelector("#alternatives").getBoundingClientRect().top - token.bottom;
    """
    page.see(lambda: page.run(gap) > 0, "the token above it")
    press(page, "#alternatives .close")
    assert page.run("return document.documentElement.scrollHeight") == height


def test_texts_keep_numbers_with_their_units_and_have_no_markup(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=5)
    page.generate()
    facts = page.run("return document.querySelector('.answer .facts').textContent")
    assert re.search(r"\d\xa0ms", facts)
    assert re.search(r"\d\xa0tokens/s", facts)
    assert not re.search(r"\d (ms|s|tokens/s)\b", facts)
    page.run("document.querySelectorAll('.token')[2].click()")
    shares = page.run("return [...document.querySelectorAll('#alternatives .facts')].map((node) => node.textContent)")
    assert shares
    assert all(re.fullmatch(r"(< )?[\d.]+\xa0%", share) for share in shares)
    assert "`" not in page.run("return document.body.textContent")


def test_views_have_only_the_settings_that_they_use(page: Any, chatty: Any) -> None:
    page.open(chatty)
    assert page.visible("#set-n")
    assert [node.text for node in page.all(".active")] == ["", "Top k 50", "", "", "", "", ""]
    page.click("#tab-chat")
    assert page.visible("#set-temperature")
    assert not page.visible("#set-n")
    for view in ("score", "batch"):
        page.click(f"#tab-{view}")
        assert not page.visible("#settings input, #history-list, #tab-settings, #tab-history")
    page.click("#tab-write")
    assert page.visible("#set-n")


def test_tabs_have_keys(page: Any, chatty: Any) -> None:
    page.open(chatty)
    page.one("#tab-write").send_keys(Keys.ARROW_RIGHT)
    assert page.active == page.one("#tab-chat")
    assert page.visible("#chat-input")
    page.active.send_keys(Keys.END)
    assert page.visible("#batch-drop")
    page.active.send_keys(Keys.ARROW_RIGHT)
    assert page.active == page.one("#tab-write")
    page.one("#tab-settings").send_keys(Keys.ARROW_LEFT)
    assert page.visible("#live-rate")


def test_a_sheet_has_keys(page: Any, storyteller: Any) -> None:
    page.emulate(width=390, height=844)
    page.open(storyteller)
    page.one("nav .narrow").send_keys(Keys.ENTER)
    page.see(lambda: page.visible("#set-temperature"), "the settings")
    page.active.send_keys(Keys.ESCAPE)
    assert not page.visible("#set-temperature")
    assert page.active == page.one("nav .narrow")


def test_the_scheme_can_be_chosen_and_is_remembered(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    light = page.background
    page.click("#theme")
    dark = page.background
    assert light != dark
    page.open(storyteller)
    assert page.background == dark
