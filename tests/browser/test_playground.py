"""The playground in a real browser: what a person does with it, and what it must never do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from tests.e2e.conftest import COMMANDS

KEY = "dg2-0123456789abcdef"
PROMPT = "Once upon a time there was a"
PACKAGES = Path(__file__).parents[2] / ".tools" / "browser"


def complete(server: Any, **body: Any) -> str:
    """What the service says without the page."""
    return server.complete(prompt=PROMPT, **body).json()["choices"][0]["text"]  # type: ignore[no-any-return]


def shown(tokens: list[str]) -> str:
    return "".join(tokens).replace("↵", "")


# ---- writing


def test_a_browser_that_opens_the_service_can_write_with_it_at_once(page: Any, storyteller: Any) -> None:
    """One click: the text comes as tokens, each with its probability's colour, and how fast they came."""
    page.open(storyteller)
    page.set(seed=7, max_tokens=30)
    page.generate()

    assert shown(page.tokens()) == complete(storyteller, max_tokens=30, temperature=0.8, top_k=50, top_p=0.95, seed=7)
    colours = page.driver.execute_script(
        "return [...document.querySelectorAll('.token')].map((node) => getComputedStyle(node).backgroundColor)"
    )
    assert len(set(colours)) > 5
    assert "30 tokens" in page.text(".facts")
    assert "tokens/s" in page.text(".facts")
    assert float(page.text("#speed")) > 0
    assert page.text("#first-token").endswith("s")
    page.see(lambda: page.text("#live-kv").endswith("%") and page.text("#live-running") == "0", "the live figures")
    assert f"Answer, 30 tokens in" in page.driver.execute_script("return announcer.textContent")
    assert {url.split("/")[2] for url in page.requested_urls()} == {storyteller.url.split("/")[2]}


def test_a_stream_is_stopped_by_key_and_by_button(page: Any, storyteller: Any) -> None:
    """And over there the work ends as well."""
    for stop in (
        lambda: page.click("#stop"),
        lambda: page.one("body").send_keys(Keys.ESCAPE),
    ):
        page.open(storyteller)
        page.set(max_tokens=480, n=8)
        page.driver.execute_script("document.querySelector('#set-ignore_eos').checked = true")
        page.one("#prompt").send_keys(Keys.CONTROL + Keys.ENTER)
        page.see(page.tokens, "the first token")
        stop()
        page.see(page.is_done, "the stream has ended")
        assert "you stopped it" in page.text(".facts")
        assert len(page.tokens()) < 8 * 480
        assert page.one("#generate").is_displayed()
        page.see(lambda: storyteller.metric("distilgpt2_running_sequences") == 0, "nothing runs")


def test_several_answers_stand_side_by_side(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(n=3, max_tokens=12, seed=1)
    page.generate()
    assert [node.text for node in page.all(".answer h2")] == ["Answer 1", "Answer 2", "Answer 3"]
    texts = {shown(page.tokens(f".answer:nth-child({index})")) for index in (1, 2, 3)}
    assert len(texts) == 3
    first, second = (node.rect for node in page.all(".answer")[:2])
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]


def test_a_locked_seed_draws_the_same_again(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=20)
    texts = []
    for _ in range(2):
        page.generate()
        texts.append(shown(page.tokens()))
    page.click("#seed-lock")
    for _ in range(2):
        page.generate()
        texts.append(shown(page.tokens()))
    assert texts[0] != texts[1] == texts[2] == texts[3]


def test_presets_and_parameters_are_what_is_asked_for(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.click(".chip:has([value=Careful]) span")
    page.set(max_tokens=15, stop="nothing\\nlike it", logit_bias="11: -5, 262: 2.5", bad_words="king\nqueen")
    assert not page.all("input[name=preset]:checked")
    page.click("#show-code")
    code = page.text("#code-text")
    for part in (
        *('"temperature":0', '"repetition_penalty":1.1', '"max_tokens":15', '"stop":["nothing\\nlike it"]'),
        *('"logit_bias":{"11":-5,"262":2.5}', '"bad_words":["king","queen"]'),
    ):
        assert part in code
    assert "top_k" not in code
    page.click("#code .close")
    page.generate()
    assert len(page.tokens()) == 15


# ---- tokens


def test_a_token_shows_its_alternatives_and_one_of_them_begins_a_branch(page: Any, storyteller: Any) -> None:
    """By its exact ids: the branch is what the service says to prompt, tokens before and alternative."""
    page.open(storyteller)
    page.set(seed=5, max_tokens=24)
    page.generate()
    before = page.tokens()
    ActionChains(page.driver).move_to_element(page.all(".token")[8]).perform()
    page.see(lambda: page.one("#alternatives").is_displayed(), "alternatives on hover")
    page.all(".token")[10].click()
    page.see(lambda: "go on from here" in page.driver.switch_to.active_element.get_attribute("aria-label"), "focus inside")
    rows = page.all(".alternative")
    assert len(rows) >= 5
    chosen = next(row for row in rows if row.is_enabled())
    text = chosen.get_attribute("aria-label").partition(",")[0].replace("␣", " ")
    chosen.click()
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "the branch")

    branch = page.tokens(".answer:nth-child(2)")
    assert branch[:11] == [*before[:10], text]
    assert len(branch) == 11 + 24
    begin = storyteller.complete(prompt=PROMPT + shown(before[:10]) + text, echo=True, max_tokens=0, return_token_ids=True)
    sampling = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 5, "max_tokens": 24}
    expected = storyteller.complete(prompt=begin.json()["choices"][0]["prompt_token_ids"], **sampling)
    assert shown(branch[11:]) == expected.json()["choices"][0]["text"]


def test_everything_can_be_done_by_keys(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=40, seed=2)
    page.one("#prompt").send_keys(Keys.CONTROL + Keys.ENTER)
    page.see(page.is_done, "the answer")
    active = lambda: page.driver.switch_to.active_element  # noqa: E731
    page.driver.execute_script("document.querySelector('.token').focus()")
    active().send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert active().get_attribute("data-index") == "2"
    page.see(lambda: page.one("#alternatives").is_displayed(), "the window follows the focus")
    active().send_keys(Keys.END)
    assert active().get_attribute("data-index") == "39"
    active().send_keys(Keys.ARROW_UP)
    assert int(active().get_attribute("data-index")) < 39
    active().send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ENTER)
    assert active().get_attribute("class").startswith("alternative")
    active().send_keys(Keys.ESCAPE)
    assert active().get_attribute("data-index") == "1", "back to the token"
    assert not page.one("#alternatives").is_displayed()
    active().send_keys(Keys.ENTER)
    active().send_keys(Keys.ARROW_DOWN)
    active().send_keys(Keys.ENTER)
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "a branch by keys")
    active().send_keys(Keys.TAB)
    assert page.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_score_shows_perplexity_and_what_was_expected(page: Any, storyteller: Any) -> None:
    text = "The cat sat on the mat.\nThe cat sat on the parliament. Ümläut 東"
    page.open(storyteller)
    page.click("#tab-score")
    page.driver.execute_script("document.querySelector('#score-text').value = arguments[0]", text)
    page.click("#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    [score] = storyteller_score(storyteller, text)
    figures = [node.text for node in page.all(".figure")]
    assert float(figures[0]) == pytest.approx(score["perplexity"], rel=5e-3)
    assert float(figures[1]) == pytest.approx(score["bits_per_byte"], abs=1e-3)
    assert int(figures[2]) == score["num_tokens"] == len(page.tokens("#score-result"))
    partial = page.driver.execute_script("return [...document.querySelectorAll('.token.partial')].map((n) => n.textContent)")
    assert partial, "the first bytes of a character are shown as such"
    assert all(part.startswith("‹") for part in partial)
    whole = [token for token in page.tokens("#score-result") if not token.startswith("‹")]
    assert shown(whole) == text
    page.all("#score-result .token")[3].click()
    assert len(page.all(".alternative")) >= 5
    page.see(lambda: page.all(".alternative:not(:disabled)"), "alternatives")[0].click()
    page.see(lambda: page.one("#write").is_displayed() and page.is_done(), "the text goes on another way")


def storyteller_score(server: Any, text: str) -> Any:
    import httpx

    return httpx.post(f"{server.url}/v1/score", json={"input": text}, timeout=30).json()["data"]


@pytest.mark.parametrize("markup", ["<img src=x onerror=alert(1)>", "</span><script>alert(1)</script>", "&lt;b&amp;"])
def test_what_looks_like_markup_stays_text(page: Any, storyteller: Any, markup: str) -> None:
    """In the prompt, in an answer, in scores and in the history."""
    page.open(storyteller)
    page.fill("#prompt", markup)
    page.set(guided_regex=r"<b onclick=alert\(1\)>&amp;</b>", max_tokens=40)
    page.generate()
    assert page.text(".prompt") == markup
    assert shown(page.tokens()) == "<b onclick=alert(1)>&amp;</b>"
    assert page.text(".past-prompt") == markup
    page.click("#tab-score")
    page.fill("#score-text", markup)
    page.click("#score-run")
    page.see(lambda: page.all("#score-result .token"), "the score")
    assert shown(page.tokens("#score-result")) == markup
    assert not page.all("main img, main b, main script")


# ---- what goes wrong


def test_a_wrong_parameter_is_shown_where_it_is(page: Any, storyteller: Any) -> None:
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


def test_a_refusal_counts_down_and_may_be_tried_again(page: Any, start_storyteller: Callable[..., Any]) -> None:
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


def test_a_key_is_asked_for_once_and_forgotten_on_demand(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """Also without one the page loads; it tells nothing. The key is kept in this tab alone, and goes in a header."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.driver.get(server.url)
    page.see(lambda: page.one("#key-dialog").is_displayed(), "the key's dialog")
    assert page.text("#model") == "Playground"
    page.one("#key").send_keys("dg2-wrong-wrong-wrong", Keys.ENTER)
    page.see(lambda: "does not know this key" in page.text("#key-problem"), "the wrong key")
    page.one("#key").send_keys(KEY, Keys.ENTER)
    page.see(lambda: page.text("#model") == "storyteller", "the model's name")
    page.set(max_tokens=8)
    page.generate()
    page.see(lambda: page.text("#live-running") == "0", "metrics, with the key")
    page.click("#show-code")
    assert "Bearer $KEY" in page.text("#code-text")
    page.click("#code .close")
    stores = page.driver.execute_script("return [{...localStorage}, {...sessionStorage}].map((one) => JSON.stringify(one))")
    assert KEY not in stores[0]
    assert KEY in stores[1]
    assert KEY not in page.driver.page_source
    assert not [url for url in page.requested_urls() if KEY in url]
    page.click("#forget-key")
    assert KEY not in page.driver.execute_script("return JSON.stringify({...localStorage, ...sessionStorage})")
    assert all("401" in error for error in page.errors())


def test_a_service_that_is_gone_says_so_and_comes_back(
    page: Any, start_storyteller: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a stream, before one, and without anybody asking; what is there already stays there."""
    server = start_storyteller()
    page.open(server)
    page.set(max_tokens=480, n=8)
    page.driver.execute_script("document.querySelector('#set-ignore_eos').checked = true")
    page.click("#generate")
    page.see(page.tokens, "the first token")
    for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    server.signal(signal.SIGKILL)
    server.wait_exit()
    page.see(lambda: "The service is gone" in page.text("#notice"), "the notice")
    page.see(page.is_done, "the stream has ended")
    assert "broke off" in page.text(".facts")
    assert page.tokens()
    assert page.see(lambda: page.text("#state") == "gone", "the state")
    page.click("#generate")
    page.see(lambda: "does not answer" in page.text("#notice"), "nothing answers")
    assert all("ERR_" in error for error in page.errors())
    page.driver.execute_script("window.isSamePage = true")
    monkeypatch.setitem(COMMANDS, "serve", [*COMMANDS["serve"][:-1], str(server.port)])
    assert start_storyteller().url == server.url
    page.see(lambda: page.text("#state") == "ready" and not page.all(".notice"), "it is back")
    assert page.driver.execute_script("return window.isSamePage")
    page.set(max_tokens=8, n=1)
    page.generate()
    page.errors()


# ---- code, history, looks


def run_code(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_offered_draws_the_same_answer(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """curl, Python and OpenAI's client, as they are shown and as they are copied; the key is the reader's to fill in."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.driver.get(server.url)
    page.see(lambda: page.one("#key-dialog").is_displayed(), "the key's dialog")
    page.one("#key").send_keys(KEY, Keys.ENTER)
    page.see(lambda: page.text("#model") == "storyteller", "the model's name")
    page.fill("#prompt", "It's \"odd\", said a \\ to 'em:")
    page.set(max_tokens=20, stop="\\n\\n\nnever", bad_words="it's")
    page.generate()
    text = page.driver.execute_script(
        "return [...document.querySelectorAll('.token:not(.cut)')].map((node) => node.textContent).join('')"
    )
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    for name, run in (
        ("curl", lambda code: run_code(["bash", "-c", code], KEY=KEY)),
        ("Python", lambda code: run_code([sys.executable, "-W", "ignore", "-c", code], KEY=KEY, PYTHONPATH=str(PACKAGES))),
        ("OpenAI client", lambda code: run_code([sys.executable, "-c", code], KEY=KEY, PYTHONPATH="")),
    ):
        page.driver.execute_script("document.querySelector('.answer .actions button:last-child').click()")
        page.click(f"#code-languages .chip:has([value='{name}']) span")
        code = page.driver.execute_script("return document.querySelector('#code-text').textContent")
        page.click("#code-copy")
        page.see(lambda: page.text("#code-copy") == "Copied", "copied")
        copied = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        assert copied == code
        output = run(code)
        if name == "curl":
            assert "[DONE]" in output
            assert f'"seed"' not in output
        else:
            assert output == text.replace("↵", "")
        page.click("#code .close")
    page.errors()


def test_the_history_is_this_browsers_and_bounded(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=8)
    page.driver.execute_script("""
        const entry = { time: 1, promptText: "old", texts: ["text"], values: {} };
        localStorage.setItem("distilgpt2-playground:/:history", JSON.stringify(Array(30).fill(entry)));
    """)
    page.open(storyteller)
    page.fill("#prompt", "A new prompt")
    page.generate()
    text = shown(page.tokens())
    assert [node.text for node in page.all(".past-prompt")] == ["A new prompt", *["old"] * 29]
    page.open(storyteller)
    page.fill("#prompt", "Another")
    page.click(".past")
    assert page.one("#prompt").get_attribute("value") == "A new prompt"
    assert page.driver.execute_script("return document.querySelector('.tokens.plain').textContent") == text
    page.generate()
    assert shown(page.tokens()) == text, "the same seed and settings draw the same"
    page.click("#history-clear")
    assert not page.all(".past")
    assert "old" not in page.driver.execute_script("return JSON.stringify({...localStorage})")


def test_it_works_where_nothing_may_be_stored(page: Any, storyteller: Any) -> None:
    script = "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open(storyteller)
        page.set(max_tokens=8)
        page.generate()
        page.click("#theme")
        assert page.all(".past")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_below_a_prefix_it_is_the_same(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """A proxy that leaves its prefix on the path, or not."""
    server = start_storyteller(root_path="/base")
    for path in ("/base/", "/base/ui"):
        page.open(server, path)
        page.set(max_tokens=5)
        page.generate()
        urls = page.requested_urls()
        assert all(url.startswith(f"{server.url}/base/") for url in urls), urls


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_looks_and_accessibility(page: Any, storyteller: Any, scheme: str, width: int) -> None:
    """Contrast, names and roles by axe-core, with answers, alternatives, dialogs and an error on the page; and nothing
    that a narrow screen has to be pushed sideways for."""
    page.emulate(scheme=scheme, width=width, height=844)
    page.open(storyteller)
    background = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) is (scheme == "dark")
    page.set(n=2, max_tokens=30, seed=4, stop="e")
    page.driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.violations() == []
    page.generate()
    page.driver.execute_script("document.querySelector('.token').click()")
    page.see(lambda: page.driver.execute_script("return document.getAnimations().length === 0"), "it is all there")
    assert page.one("#alternatives").is_displayed()
    assert page.violations() == []
    assert_fits(page)
    page.driver.execute_script("document.querySelector('#show-code').click()")
    assert page.violations() == []
    page.driver.execute_script("document.querySelector('#code .close').click()")
    page.driver.execute_script("document.querySelector('#tab-score').click(); document.querySelector('#score-run').click()")
    page.see(lambda: page.all("#score-result .token"), "the score")
    assert page.violations() == []
    assert_fits(page)
    page.driver.execute_script("document.querySelector('#tab-write').click()")
    page.set(top_p=5)
    page.driver.execute_script("document.querySelector('#generate').click()")
    page.see(lambda: page.all(".notice"), "the error")
    assert page.violations() == []
    assert_fits(page)
    page.errors()


def assert_fits(page: Any) -> None:
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_the_scheme_can_be_chosen_and_is_remembered(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    colour = lambda: page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    light = colour()
    page.click("#theme")
    dark = colour()
    assert light != dark
    page.open(storyteller)
    assert colour() == dark
