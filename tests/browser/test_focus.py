"""The playground in a real browser: by keyboard and by voice alone."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

LOST_FOCUS = pytest.mark.reported("a reader of the playground: after Enter on Generate the focus is gone")


def press(page: Any, selector: str) -> None:
    """Focus the element and press Enter."""
    page.run("document.querySelector(arguments[0]).focus()", selector)
    assert page.active == page.one(selector)
    page.active.send_keys(Keys.ENTER)


@LOST_FOCUS
def test_starting_and_stopping_keep_the_focus(page: Any, chatty: Any) -> None:
    """It moves to the button that takes the place of the one that was pressed."""
    page.open(chatty)
    page.set(max_tokens=500, n=8)
    page.slow_down()
    press(page, "#generate")
    page.see(lambda: page.all(".running .token"), "the answers begin")
    assert page.active == page.one("#stop")
    page.active.send_keys(Keys.ENTER)
    page.see(page.is_done, "the answers have ended")
    assert page.active == page.one("#generate")
    page.click("#tab-score")
    press(page, "#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    page.see(lambda: page.active == page.one("#score-run"), "the focus is back")


@LOST_FOCUS
def test_a_chat_keeps_the_focus(page: Any, chatty: Any) -> None:
    """Also if the answer with the pressed button goes."""
    page.open(chatty)
    page.set(max_tokens=5)
    page.click("#tab-chat")
    page.fill("#chat-input", "Once upon a time")
    press(page, "#chat-send")
    page.see(lambda: page.all("#chat .answer:not(.running)"), "the answer")
    assert page.active == page.one("#chat-send")
    press(page, "#chat .answer footer button")
    page.see(lambda: page.active == page.one("#chat-send"), "another answer")


@LOST_FOCUS
def test_answers_that_move_or_go_leave_the_focus_in_their_place(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=5, n=3)
    page.generate()
    first, _, third = page.all(".answer")
    for _ in ("pinned", "unpinned"):
        press(page, ".answer .pin")
        assert page.active == first.find_element(By.CSS_SELECTOR, ".pin")
    press(page, ".answer:nth-child(2) .remove")
    assert page.active == third.find_element(By.CSS_SELECTOR, ".remove")
    page.active.send_keys(Keys.ENTER)
    assert page.active == first.find_element(By.CSS_SELECTOR, ".remove")
    page.active.send_keys(Keys.ENTER)
    assert page.active == page.one("#prompt")
    page.generate()
    page.click(".answer .pin")
    press(page, "#unpin")
    assert page.active == page.one("#prompt")
    press(page, "#clear-answers")
    assert page.active == page.one("#prompt")
    page.show_panel("history")
    press(page, "#history-clear")
    assert page.active == page.one("#tab-history")


@LOST_FOCUS
def test_a_dismissed_notice_leaves_the_focus_on_the_view(page: Any, start_storyteller: Any) -> None:
    server = start_storyteller()
    page.open(server)
    server.process.terminate()
    server.wait_exit()
    page.see(lambda: page.text("#state") == "offline", "the page notices")
    press(page, "#notice .remove")
    assert page.active == page.one("#tab-write")
    assert all("Failed to load resource" in error for error in page.errors())


def test_names_for_voice_control_contain_the_visible_text(page: Any, chatty: Any) -> None:
    """WCAG 2.2, 2.5.3: what is said is what is seen."""
    page.open(chatty)
    page.set(max_tokens=5)
    page.generate()
    page.click(".answer .pin")
    page.click("#tab-chat")
    page.fill("#chat-input", "Once upon a time")
    press(page, "#chat-send")
    page.see(lambda: page.all("#chat .answer:not(.running)"), "the answer")
    names = page.run("""
        return [...document.querySelectorAll("button[aria-label], a[aria-label]")].map((node) => {
            return [node.textContent.trim().toLowerCase(), node.getAttribute("aria-label").toLowerCase()];
        });
    """)
    worded = [(text, name) for text, name in names if any(letter.isalpha() for letter in text)]
    assert {"share", "again", "reuse", "copy", "edit", "json"} <= {text for text, _ in worded}
    assert [pair for pair in worded if pair[0] not in pair[1]] == []
