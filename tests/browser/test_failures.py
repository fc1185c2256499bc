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


def test_a_wrong_parameter_is_shown_at_its_field(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(typical_p=3)
    page.click("#generate")
    notice = page.see(lambda: page.all(".notice"), "the error")[0]
    assert "typical_p: " in notice.text
    assert "HTTP 400 · invalid_request_error · parameter typical_p" in notice.text
    field = page.one("#set-typical_p")
    assert field.get_attribute("aria-invalid") == "true"
    assert page.text("#set-typical_p-error").startswith("typical_p: ")
    assert not page.all(".answer")
    page.set(typical_p=0.9)
    assert field.get_attribute("aria-invalid") is None
    page.generate()
    assert not page.all(".notice")
    [error] = page.errors()
    assert "400" in error


def test_a_seed_that_the_page_would_round_is_refused_in_its_field(page: Any, storyteller: Any) -> None:
    """JavaScript's numbers are exact up to 2^53: request and code must have the seed that the page shows."""
    page.open(storyteller)
    page.set(seed=2**53 + 1)
    for button in ("#generate", "#show-code"):
        page.click(button)
        assert "9007199254740991" in page.see(lambda: page.all(".notice"), "the error")[0].text
        assert page.one("#set-seed").get_attribute("aria-invalid") == "true"
        assert len(page.all("#settings .field-error")) == 1
        assert page.text("#set-seed-error").startswith("seed: ")
        assert not page.one("#code").is_displayed()
    assert not page.all(".answer")
    assert not [url for url in page.requested_urls() if url.endswith("/v1/completions")]
    page.set(seed=2**53 - 1, max_tokens=10)
    assert not page.all("#settings .field-error")
    page.generate()
    assert (
        page.story()
        == storyteller.complete(
            prompt="Once upon a time there was a", max_tokens=10, temperature=0.8, top_k=50, top_p=0.95, seed=2**53 - 1
        ).json()["choices"][0]["text"]
    )


def test_an_ambiguous_bias_is_refused(page: Any, storyteller: Any) -> None:
    """Without a token, without a number, or with two numbers, the service refuses it; the page drops nothing."""
    page.open(storyteller)
    for bias in (": 5", "11", "11: 5: 3"):
        page.set(logit_bias=bias)
        page.click("#generate")
        page.see(lambda: page.all("#set-logit_bias-error"), f"what is wrong with {bias}")
        assert not page.all(".answer")
    page.set(logit_bias="11: -5, 262: 2.5", max_tokens=5)
    page.generate()
    assert all("400" in error for error in page.errors())


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


def test_an_unreachable_service_is_shown_until_it_is_back(
    page: Any, start_storyteller: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a stream, before one, and without a request; the page keeps the text that it has."""
    server = start_storyteller()
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
