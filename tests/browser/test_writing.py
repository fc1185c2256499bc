"""The playground in a real browser: generating text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

PROMPT = "Once upon a time there was a"


def complete(server: Any, **body: Any) -> str:
    """The service's own completion, without the page."""
    return server.complete(prompt=PROMPT, **body).json()["choices"][0]["text"]  # type: ignore[no-any-return]  # JSON is Any


def test_the_first_page_generates_text_with_one_click(page: Any, storyteller: Any) -> None:
    """The text arrives as tokens in the colours of their probabilities, with the rate."""
    page.open(storyteller)
    page.set(seed=7, max_tokens=30)
    page.generate()

    assert page.story() == complete(storyteller, max_tokens=30, temperature=0.8, top_k=50, top_p=0.95, seed=7)
    colours = page.run(
        "return [...document.querySelectorAll('.token')].map((node) => getComputedStyle(node).backgroundColor)"
    )
    assert len(set(colours)) > 5
    assert re.fullmatch(
        r"30 tokens · [1-9]\d* tokens/s · first after .*s · stopped at length limit · service: .* tokens/s",
        page.text(".facts"),
    )
    page.show_panel("service")
    page.see(lambda: page.text("#live-kv").endswith("%") and page.text("#live-running") == "0", "the live figures")
    assert "Answer, 30 tokens in" in page.run("return announcer.textContent")
    assert {url.split("/")[2] for url in page.requested_urls()} == {storyteller.url.split("/")[2]}


@pytest.mark.parametrize("is_by_key", [True, False])
def test_a_key_and_a_button_stop_a_stream(page: Any, storyteller: Any, is_by_key: bool) -> None:
    """The service cancels the work too."""
    page.open(storyteller)
    page.set(max_tokens=480, n=8)
    page.run("document.querySelector('#set-ignore_eos').checked = true")
    page.slow_down()
    page.one("#prompt").send_keys(Keys.CONTROL + Keys.ENTER)
    page.see(page.tokens, "the first token")
    if is_by_key:
        page.one("body").send_keys(Keys.ESCAPE)
    else:
        page.click("#stop")
    page.see(page.is_done, "the stream has ended")
    assert "stopped by you" in page.text(".facts")
    assert len(page.tokens(".answer")) < 8 * 480
    assert page.one("#generate").is_displayed()
    page.see(lambda: storyteller.metric("distilgpt2_running_sequences") == 0, "nothing runs")


def test_several_completions_are_side_by_side(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(n=3, max_tokens=12, seed=1)
    page.generate()
    assert [node.text for node in page.all(".answer h3")] == ["Answer 1", "Answer 2", "Answer 3"]
    texts = {page.story(f".run .answer:nth-child({index})") for index in (1, 2, 3)}
    assert len(texts) == 3
    first, second = (node.rect for node in page.all(".answer")[:2])
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]


def test_a_locked_seed_repeats_the_text(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=20)
    texts = []
    for _ in range(2):
        page.generate()
        texts.append(page.story())
    page.click("#seed-lock")
    for _ in range(2):
        page.generate()
        texts.append(page.story())
    assert texts[0] != texts[1] == texts[2] == texts[3]


def test_the_request_has_presets_and_parameters(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.click(".chip:has([value=Careful]) span")
    page.set(max_tokens=15, stop="nothing\\nlike it", logit_bias="11: -5, 262: 2.5", bad_words="king\nqueen")
    assert not page.all("input[name=preset]:checked")
    page.click("#show-code")
    code = page.text("#code-text")
    for part in (
        *('"temperature": 0', '"repetition_penalty": 1.1', '"max_tokens": 15', '"stop": ["nothing\\nlike it"]'),
        *('"11": -5', '"262": 2.5', '"bad_words": ["king", "queen"]'),
    ):
        assert part in code
    assert "top_k" not in code
    page.click("#code .close")
    page.generate()
    assert len(page.tokens()) == 15


def test_the_services_own_defaults_are_a_preset(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """The page begins with them, and sends each of these parameters, so that the form shows what applies."""
    defaults = '{"temperature": 0.3, "top_k": 7, "ignore_eos": true, "max_new_tokens": 33}'
    server = start_storyteller(override_generation_config=defaults)
    page.open(server)
    assert [node.text for node in page.all("#presets .chip")][:2] == ["Service", "Balanced"]
    assert page.one("[value=Service]").is_selected()
    assert page.text("#preset-help") == "The service's own defaults."
    page.set(seed=3)
    page.generate()
    assert page.story() == complete(server, seed=3)
    assert len(page.tokens()) == 33
    page.click(".chip:has([value=Pure]) span")
    page.click("#show-code")
    for part in ('"temperature": 1', '"top_k": 0', '"ignore_eos": false', '"max_tokens": 33'):
        assert part in page.text("#code-text")
    page.click("#code .close")
    page.open(server)
    assert page.one("[value=Pure]").is_selected(), "a choice is kept"


def test_it_works_without_storage(page: Any, storyteller: Any) -> None:
    script = """
        const forbidden = { get() { throw new DOMException("no", "SecurityError"); } };
        for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, forbidden);
    """
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open(storyteller)
        page.set(max_tokens=8)
        page.generate()
        page.click("#theme")
        assert page.all(".past")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_it_works_below_a_prefix(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """With a proxy that keeps its prefix in the path, and with one that removes it."""
    server = start_storyteller(root_path="/base")
    for path in ("/base/", "/base/ui"):
        page.open(server, path)
        page.set(max_tokens=5)
        page.generate()
        urls = page.requested_urls()
        assert all(url.startswith(f"{server.url}/base/") for url in urls), urls


def test_the_services_defaults_are_the_first_preset(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """The form shows what applies: a parameter that has a default is sent, also with a neutral value."""
    defaults = '{"top_k": 3, "ignore_eos": true, "max_new_tokens": 20}'
    server = start_storyteller(override_generation_config=defaults, served_model_names="storyteller,tales")
    page.open(server)
    page.see(lambda: "also tales" in page.text("#model-facts"), "the other name")
    assert page.run("return document.querySelector('#presets :checked').value") == "Service"
    page.set(seed=7)
    page.generate()
    assert page.story() == complete(server, seed=7)

    page.run("document.querySelector('#presets [value=Pure]').click()")
    assert page.run("return document.querySelector('#set-max_tokens').value") == "20"
    page.set(seed=7)
    page.generate()
    assert page.story() == complete(server, seed=7, top_k=0, ignore_eos=False)
