"""The playground in a real browser: tokens, alternatives, branches and scores, which never become markup."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

PROMPT = "Once upon a time there was a"


def test_a_token_shows_its_alternatives_and_one_of_them_starts_a_branch(page: Any, storyteller: Any) -> None:
    """With exact token ids: the branch equals the completion of prompt, preceding tokens and alternative."""
    page.open(storyteller)
    page.set(seed=5, max_tokens=24)
    page.generate()
    before = page.tokens()
    ActionChains(page.driver).move_to_element(page.all(".token")[8]).perform()
    page.see(lambda: page.one("#alternatives").is_displayed(), "alternatives on hover")
    page.all(".token")[10].click()
    page.see(lambda: "continue from here" in page.active.get_attribute("aria-label"), "focus inside")
    rows = page.all(".alternative")
    assert len(rows) >= 5
    chosen = next(row for row in rows if row.is_enabled())
    text = chosen.get_attribute("aria-label").partition(",")[0].replace("␣", " ")
    chosen.click()
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "the branch")

    branch = page.tokens(".run .answer:nth-child(2)")
    assert branch[:11] == [*before[:10], text]
    assert len(branch) == 11 + 24
    begin = storyteller.complete(
        prompt=PROMPT + page.joined(before[:10]) + text, echo=True, max_tokens=0, return_token_ids=True
    )
    sampling = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 5, "max_tokens": 24}
    expected = storyteller.complete(prompt=begin.json()["choices"][0]["prompt_token_ids"], **sampling)
    assert page.joined(branch[11:]) == expected.json()["choices"][0]["text"]


def test_every_action_has_a_key(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=40, seed=2)
    page.one("#prompt").send_keys(Keys.CONTROL + Keys.ENTER)
    page.see(page.is_done, "the answer")
    page.run("document.querySelector('.token').focus()")
    page.active.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.active.get_attribute("data-index") == "2"
    page.see(lambda: page.one("#alternatives").is_displayed(), "the window follows the focus")
    page.active.send_keys(Keys.END)
    assert page.active.get_attribute("data-index") == "39"
    page.active.send_keys(Keys.ARROW_UP)
    assert int(page.active.get_attribute("data-index")) < 39
    page.active.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ENTER)
    assert page.active.get_attribute("class").startswith("alternative")
    page.active.send_keys(Keys.ESCAPE)
    assert page.active.get_attribute("data-index") == "1", "back to the token"
    assert not page.one("#alternatives").is_displayed()
    page.active.send_keys(Keys.ENTER)
    page.active.send_keys(Keys.ARROW_DOWN)
    page.active.send_keys(Keys.ENTER)
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "a branch by keys")
    page.active.send_keys(Keys.TAB)
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_score_shows_perplexity_and_the_expected_tokens(page: Any, storyteller: Any) -> None:
    text = "The cat sat on the mat.\nThe cat sat on the parliament. Ümläut 東"
    page.open(storyteller)
    page.click("#tab-score")
    page.run("document.querySelector('#score-text').value = arguments[0]", text)
    page.click("#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    answer = httpx.post(f"{storyteller.url}/v1/score", json={"input": text}, timeout=30)
    [score] = answer.json()["data"]
    figures = [node.text for node in page.all(".figure")]
    assert float(figures[0].replace(",", "")) == pytest.approx(score["perplexity"], rel=5e-3)
    assert float(figures[1]) == pytest.approx(score["bits_per_byte"], abs=1e-3)
    assert int(figures[2]) == score["num_tokens"] == len(page.tokens("#score-result"))
    partial = [node.text for node in page.all("#score-result .token.partial")]
    assert partial, "the first bytes of a character are shown as such"
    assert all(re.fullmatch(".[0-9a-f]{2}( [0-9a-f]{2})*.", token) for token in partial)
    assert page.joined([token for token in page.tokens("#score-result") if token not in partial]) == text
    page.all("#score-result .token")[3].click()
    assert len(page.all(".alternative")) >= 5
    page.see(lambda: page.all(".alternative:not(:disabled)"), "alternatives")[0].click()
    page.see(lambda: page.one("#write").is_displayed() and page.is_done(), "the text goes on another way")


@pytest.mark.parametrize("markup", ["<img src=x onerror=alert(1)>", "</span><script>alert(1)</script>", "&lt;b&amp;"])
def test_markup_stays_text(page: Any, storyteller: Any, markup: str) -> None:
    """In the prompt, in a completion, in scores and in the history."""
    page.open(storyteller)
    page.fill("#prompt", markup)
    page.set(guided_regex=r"<b onclick=alert\(1\)>&amp;</b>", max_tokens=40)
    page.generate()
    assert page.text(".prompt") == markup
    assert page.story() == "<b onclick=alert(1)>&amp;</b>"
    page.show_panel("history")
    assert page.text(".past-prompt") == markup
    page.click("#tab-score")
    page.fill("#score-text", markup)
    page.click("#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    assert page.story("#score-result") == markup
    assert not page.all("main img, main b, main script")
