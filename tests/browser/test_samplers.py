"""The playground in a real browser: the preset against loops, and the service's times of an answer."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from tests.browser.conftest import NEWEST

OLDER = "#answers .run:nth-child(2) .answer"
WIDTHS = pytest.mark.parametrize("width", [1280, 390])
TIMES = re.compile(r"service: queue (\d+) ms, prefill (\d+) ms, decode (\d+) ms, (\d+) tokens/s")


def most_repeated(text: str, num_words: int = 4) -> int:
    """How often the most frequent sequence of words occurs."""
    words = text.split()
    return max(Counter(tuple(words[at : at + num_words]) for at in range(len(words) - num_words + 1)).values())


@WIDTHS
def test_a_preset_cures_a_loop_and_shows_it(page: Any, storyteller: Any, width: int) -> None:
    """Its example generates the text without DRY, then with it, with the settings of each."""
    page.emulate(width=width)
    page.open(storyteller)
    assert not page.all("#preset-help button")
    page.click("#presets .chip:has([value='No loops']) span")
    assert page.text("#preset-help").startswith("The likeliest token, but no repetitions (DRY).")
    page.click("#preset-help button")
    page.see(lambda: len(page.all("#answers .answer")) == 2 and page.is_done(), "both answers")

    loop, cured = page.story(OLDER), page.story(NEWEST)
    assert most_repeated(loop) > 8
    assert most_repeated(cured) <= 3
    assert page.run("return document.querySelector('#prompt').value") == "Once upon a time there lived a king"
    assert "dry multiplier 0.8" in page.text(f"{NEWEST} .given")
    assert "dry multiplier 0\n" in page.text(f"{OLDER} .given") + "\n"
    assert page.violations() == []


@WIDTHS
def test_an_answer_shows_the_services_times(page: Any, storyteller: Any, width: int) -> None:
    """Also in the history, and with several answers."""
    page.emulate(width=width)
    page.open(storyteller)
    page.set(max_tokens=40, n=2, seed=3)
    page.generate()
    facts = page.text(f"{NEWEST} .facts")
    found = TIMES.search(facts)
    assert found, facts
    _, _, decode_ms, per_s = (int(text) for text in found.groups())
    assert per_s > 0
    # Two answers of 40 tokens, all but the first of which are decoded together; both figures are rounded.
    assert 1000 * 80 / (decode_ms + 1) * 0.8 < per_s < 1000 * 80 / max(decode_ms - 1, 1) * 1.2
    assert all(TIMES.search(node.text) for node in page.all(".answer .facts"))
    fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.run(fits)

    page.open(storyteller)
    assert not page.all(".answer")
    page.show_panel("history")
    page.click(".past")
    page.see(lambda: TIMES.search(page.text(f"{NEWEST} .facts")), "the times of an earlier answer")
    page.run("document.querySelector('#side').hidePopover()")
