"""The playground in a real browser: wrong parameters, refusals, keys, and an unreachable service."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from tests.e2e.conftest import COMMANDS

KEY = "dg2-0123456789abcdef"


REFUSED = {
    "#prompt": ("", "Write a prompt first."),
    "#set-temperature": ("9", "Temperature must be a number from 0 to 2."),
    "#set-typical_p": ("3", "Typical p must be a number from 0.01 to 1."),
    "#set-top_k": ("1.5", "Top k must be a whole number from 0 to 2147483648."),
    "#set-max_tokens": ("99999", "Length must be a whole number from 1 to 511."),
    "#set-min_tokens": ("101", "The minimum length must be at most the length, 100."),
    "#set-seed": (str(2**53 + 1), "A seed must be a whole number. This page can send up to 9007199254740991"),
    "#set-stop_token_ids": ("eleven", "Token ids must be whole numbers, such as 11, 262."),
    "#set-logit_bias": ("11: 5: 3", "Write token ids with numbers from -100 to 100, such as 262: -5, 11: 2."),
    "#set-bad_words": ("a\n  \nb", "A line has only spaces: remove it."),
}
"""Values that can't be sent, with what the page says at their fields."""
UNKNOWN_TO_THE_PAGE = {
    "#set-guided_regex": ("(a", "Pattern (regex) is not a regular expression that can be followed: unclosed group"),
    "#set-allowed_token_ids": ("999999", "Only these tokens has token id 999999, outside the vocabulary: 0 to 3071"),
}
"""Values that only the service can refuse."""


def problems(page: Any) -> list[str]:
    return [node.text for node in page.visible(".field-error, .notice") if node.text]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_refused_run_keeps_the_answers_and_says_once_what_is_wrong(page: Any, storyteller: Any, width: int) -> None:
    """At the field, in words, with the focus on it; on a phone in the sheet, which opens for it."""
    page.emulate(width=width, height=844)
    page.open(storyteller)
    page.set(max_tokens=8)
    page.run("document.querySelector('#generate').click()")
    page.see(page.is_done, "an answer")
    text = page.story()
    page.set(max_tokens=100)
    page.requested_urls()
    for selector, (value, message) in (REFUSED | UNKNOWN_TO_THE_PAGE).items():
        before = page.one(selector).get_property("value")
        page.fill(selector, value)
        page.run("document.querySelector('#side').hidePopover(); document.querySelector('#generate').click()")
        page.see(lambda: problems(page), f"what is wrong with {value!r}")
        assert len(problems(page)) == 1, problems(page)
        [shown] = problems(page)
        assert shown.startswith(message)
        assert page.active == page.one(selector)
        assert page.active.is_displayed()
        assert page.active.get_attribute("aria-invalid") == "true"
        assert page.story() == text
        assert len(page.all(".answer")) == 1
        page.fill(selector, before)
        page.run("document.querySelector('#side').hidePopover()")
        if selector == "#set-seed":
            page.run("document.querySelector('#seed-lock').click()")
        assert not problems(page)
    sent = [url for url in page.requested_urls() if url.endswith("/v1/completions")]
    assert len(sent) == len(UNKNOWN_TO_THE_PAGE)
    assert all("400" in error for error in page.errors())
    page.set(max_tokens=5)
    page.run("document.querySelector('#generate').click()")
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "a run with valid values")


def test_a_wrong_value_is_shown_when_its_field_is_left(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.fill("#set-temperature", "9")
    assert not problems(page)
    page.active.send_keys(Keys.TAB)
    assert problems(page) == ["Temperature must be a number from 0 to 2."]
    described = page.one("#set-temperature").get_attribute("aria-describedby").split()
    assert next(page.text(f"#{name}") for name in described) == "Temperature must be a number from 0 to 2."
    page.set(temperature=1)
    assert not problems(page)


def test_the_largest_seed_of_the_page_is_exact(page: Any, storyteller: Any) -> None:
    """JavaScript's numbers are exact up to 2^53: request and code have the seed that the page shows."""
    page.open(storyteller)
    page.set(seed=2**53 - 1, max_tokens=10)
    page.generate()
    sampling = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 2**53 - 1, "max_tokens": 10}
    answer = storyteller.complete(prompt="Once upon a time there was a", **sampling)
    assert page.story() == answer.json()["choices"][0]["text"]


def test_a_refusal_counts_down_and_can_be_retried(page: Any, start_storyteller: Callable[..., Any]) -> None:
    server = start_storyteller(key_tokens_per_s=20, key_burst_tokens=60)
    page.open(server)
    page.set(max_tokens=40)
    page.generate()
    page.click("#generate")
    retry = page.see(lambda: page.all(".retry"), "the refusal")[0]
    assert retry.text.startswith("Try again in ")
    assert not retry.is_enabled()
    assert "HTTP 429 · rate_limit_error · rate_limit_exceeded" in page.text(".notice")
    page.see(retry.is_enabled, "the wait is over")
    retry.click()
    page.see(page.is_done, "the answer")
    assert len(page.errors()) == 1


def test_a_key_is_requested_once_and_forgotten_on_demand(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """Without a key the page loads but shows no data. The key is kept in this tab and sent in a header."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.driver.get(server.url)
    page.see(lambda: page.one("#key-dialog").is_displayed(), "the key's dialog")
    assert page.text("#model") == "Playground"
    page.see(lambda: '"status": 401' in server.log, "the refusal's line")
    assert server.log.count('"status": 401') == 1, "opening the page does not look like guessing"
    page.one("#key").send_keys("dg2-wrong-wrong-wrong", Keys.ENTER)
    page.see(lambda: "does not accept this key" in page.text("#key-problem"), "the wrong key")
    page.one("#key").send_keys(KEY, Keys.ENTER)
    page.see(lambda: page.text("#model") == "storyteller", "the model's name")
    page.set(max_tokens=8)
    page.generate()
    page.show_panel("service")
    page.see(lambda: page.text("#live-running") == "0", "metrics, with the key")
    page.click("#show-code")
    assert "Bearer $KEY" in page.text("#code-text")
    page.click("#code .close")
    stores = page.run("return [{...localStorage}, {...sessionStorage}].map((one) => JSON.stringify(one))")
    assert KEY not in stores[0]
    assert KEY in stores[1]
    assert KEY not in page.driver.page_source
    assert not [url for url in page.requested_urls() if KEY in url]
    page.click("#forget-key")
    assert KEY not in page.run("return JSON.stringify({...localStorage, ...sessionStorage})")
    assert all("401" in error for error in page.errors())


@pytest.mark.parametrize("link", ["docs", "redoc"])
def test_the_api_pages_use_the_key_of_the_page(page: Any, start_storyteller: Callable[..., Any], link: str) -> None:
    """A link can't send a header, so `/docs` and `/redoc` are open and load the document themselves."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.enter_key(server, KEY)
    page.errors()
    if link == "docs":
        page.click("nav a")
    else:
        page.driver.get(f"{server.url}/redoc")
    page.see(lambda: "Create a batch" in page.text("body"), "the operations")
    page.driver.get("about:blank")
    page.driver.get(server.url)
    page.run("sessionStorage.clear()")
    page.driver.get(f"{server.url}/{link}")
    page.see(lambda: page.all("form input"), "it asks for a key")[0].send_keys("wrong" * 5, Keys.ENTER)
    page.see(lambda: "does not accept" in page.text("form"), "the wrong key")
    page.one("form input").send_keys(KEY, Keys.ENTER)
    page.see(lambda: "Create a batch" in page.text("body"), "the operations")
    assert all("401" in error or "OpenAPI Sampler" in error for error in page.errors())


def test_an_unreachable_service_is_shown_until_it_is_back(
    page: Any, start_storyteller: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a stream, before one, and without a request; the page keeps the text that it has."""
    server = start_storyteller(max_num_sequences=1)  # one answer after the other, so that the stream takes seconds
    page.open(server)
    page.set(max_tokens=480, n=8)
    page.run("document.querySelector('#set-ignore_eos').checked = true")
    page.click("#generate")
    page.see(page.tokens, "the first token")
    for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    server.signal(signal.SIGKILL)
    server.wait_exit()
    page.see(lambda: "The service is offline" in page.text("#notice"), "the notice")
    page.see(page.is_done, "the stream has ended")
    assert "interrupted" in page.text(".facts")
    assert page.tokens()
    assert page.see(lambda: page.text("#state") == "offline", "the state")
    page.click("#generate")
    page.see(lambda: "does not answer" in page.text("#notice"), "nothing answers")
    assert all("ERR_" in error for error in page.errors())
    page.run("window.isSamePage = true")
    monkeypatch.setitem(COMMANDS, "serve", [*COMMANDS["serve"][:-1], str(server.port)])
    assert start_storyteller().url == server.url
    page.see(lambda: page.text("#state") == "ready" and not page.all(".notice"), "it is back")
    assert page.run("return window.isSamePage")
    page.set(max_tokens=8, n=1)
    page.generate()
    page.errors()
