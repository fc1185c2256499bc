"""The playground in a real browser: the code that it offers, and the data that it stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.browser.conftest import NEWEST

KEY = "dg2-0123456789abcdef"


def run_code(command: list[str]) -> str:
    environment = {**os.environ, "KEY": KEY, "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_of(page: Any, language: str, *options: str) -> str:
    """The code that the open dialog shows."""
    page.click(f"#code-languages .chip:has([value='{language}']) span")
    for option in options:
        page.click(f"#code-{option}")
    return page.run("return document.querySelector('#code-text').textContent")  # type: ignore[no-any-return]  # Selenium returns Any


def test_the_offered_code_generates_the_same_text(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """With curl and OpenAI's client, whole and streamed, as shown and as copied; the reader inserts the key."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.enter_key(server, KEY)
    page.fill("#prompt", "It's \"odd\", said a \\ to 'em:")
    page.set(max_tokens=20, seed=3, stop="\\n\\n\nnever", bad_words="it's")
    page.generate()
    script = "return [...document.querySelectorAll('.token:not(.cut)')].map((node) => node.textContent).join('')"
    text = page.joined(page.run(script))
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.click(".answer .actions button:nth-child(3)")
    for language, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
        code = code_of(page, language)
        page.click("#code-copy")
        page.see(lambda: page.text("#code-copy") == "Copied", "copied")
        assert page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == code
        whole = run_code([*command, code])
        streamed = run_code([*command, code_of(page, language, "stream")])
        page.click("#code-stream")
        if language == "curl":
            assert json.loads(whole)["choices"][0]["text"] == text
            assert streamed.endswith("data: [DONE]\n\n")
        else:
            assert whole == f"{text}\n"
            assert streamed == text
    page.errors()


def test_the_code_for_ollamas_api_generates_the_same_text(page: Any, storyteller: Any) -> None:
    """Its defaults are other ones, and it has fewer parameters: the code names those that it leaves out."""
    page.open(storyteller)
    page.fill("#prompt", "It's \"odd\", said a \\ to 'em:")
    page.set(max_tokens=20, seed=5, repetition_penalty=1.2, stop="\\n\\n\\nnever")
    page.generate()
    script = "return [...document.querySelectorAll('.token:not(.cut)')].map((node) => node.textContent).join('')"
    text = page.joined(page.run(script))
    page.click("#show-code")
    assert json.loads(run_code(["bash", "-c", code_of(page, "Ollama")]))["response"] == text
    *lines, last = run_code(["bash", "-c", code_of(page, "Ollama", "stream", "logprobs")]).splitlines()
    assert "".join(json.loads(line)["response"] for line in lines) == text
    assert json.loads(lines[0])["logprobs"]
    assert json.loads(last)["eval_count"] == 20
    page.click("#code .close")
    page.set(bad_words="it's")
    page.click("#show-code")
    assert code_of(page, "Ollama").startswith("# Ollama's API has no bad_words.\n")
    page.errors()


def test_the_code_has_no_fields_of_the_page_itself(page: Any, storyteller: Any) -> None:
    """It asks for log-probabilities and a stream to show tokens; a reader gets these only on demand. The ids of a
    branch are explained.
    """
    page.open(storyteller)
    page.set(max_tokens=20, seed=5)
    page.generate()
    page.all(f"{NEWEST} .token")[16].click()
    page.see(lambda: page.visible(".alternative:not(:disabled)"), "alternatives")[0].click()
    page.see(lambda: len(page.all(".answer")) == 2 and page.is_done(), "a branch")
    own = {"stream", "logprobs", "return_token_ids"}
    for button in ("#show-code", ".answer:nth-child(1) .actions button:nth-child(3)"):
        page.click(button)
        body = json.loads(code_of(page, "curl").partition("-d '")[2].rstrip("'\n"))
        assert set(body) == {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "top_k"}
        code = code_of(page, "curl", "stream", "logprobs")
        assert own & json.loads(code.partition("-d '")[2].rstrip("'\n")).keys() == {"stream", "logprobs"}
        page.click("#code .close")
    page.click(".answer:nth-child(2) .actions button:nth-child(3)")
    for language in ("curl", "Python"):
        code = code_of(page, language)
        assert code.startswith("# The prompt is token ids: exactly those that the model saw")
        assert not any(name in code for name in own)
        assert max(map(len, code.splitlines())) < 100, "no endless line"
    assert run_code(["bash", "-c", code_of(page, "curl")]).startswith('{"id":')


@pytest.mark.reported("a reader of the playground: Code drew a new seed, so its request was not the one on the screen")
def test_the_forms_code_has_the_seed_that_the_form_shows(page: Any, storyteller: Any) -> None:
    """Only a run draws a seed. Code leaves the field alone, so it shows the answer's own request."""

    def body_of(button: str) -> Any:
        page.click(button)
        body = json.loads(code_of(page, "curl").partition("-d '")[2].rstrip("'\n"))
        page.click("#code .close")
        return body

    page.open(storyteller)
    page.set(max_tokens=8)
    assert "seed" not in body_of("#show-code")
    assert page.one("#set-seed").get_property("value") == ""
    page.generate()
    seed = page.one("#set-seed").get_property("value")
    body = body_of("#show-code")
    assert body == body_of(".answer .actions button:nth-child(3)")
    assert body["seed"] == int(seed)
    assert page.one("#set-seed").get_property("value") == seed
    page.generate()
    assert page.one("#set-seed").get_property("value") != seed, "a run that is not locked draws a new one"


@pytest.mark.reported("users of vLLM and llama.cpp, where -1 stands for a seed drawn at random")
def test_minus_one_is_no_seed(page: Any, storyteller: Any) -> None:
    """Each run chooses a seed and shows it, locked or not, so that every completion can be repeated."""
    page.open(storyteller)
    page.set(seed=-1, max_tokens=8)
    page.run("document.querySelector('#seed-lock').checked = true")
    page.fill("#prompt", "Once upon a time")
    page.generate()
    assert int(page.one("#set-seed").get_attribute("value")) >= 0


def test_the_history_stays_in_this_browser_and_is_limited(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=8)
    page.fill("#prompt", "old")
    page.generate()
    page.run("""
        const name = "distilgpt2-playground:/:history";
        const [entry] = JSON.parse(localStorage.getItem(name));
        localStorage.setItem(name, JSON.stringify(Array.from({ length: 30 }, (_, id) => ({ ...entry, id: id + 1 }))));
    """)
    page.open(storyteller)
    page.fill("#prompt", "A new prompt")
    page.generate()
    page.show_panel("history")
    assert [node.text for node in page.all(".past-prompt")] == ["A new prompt", *["old"] * 29]
    page.click("#history-clear")
    assert not page.all(".past")
    assert "old" not in page.run("return localStorage.getItem('distilgpt2-playground:/:history') ?? ''")


def test_the_history_restores_whole_answers_and_locks_nothing(page: Any, storyteller: Any) -> None:
    """Colours, alternatives, branches and code, as before the page was closed."""
    page.open(storyteller)
    page.set(max_tokens=12, n=2, temperature=1)
    page.fill("#prompt", "A new prompt")
    page.generate()
    look = """
        return [...document.querySelectorAll(".answer")].map((card) => [
            card.querySelector(".facts").textContent, card.querySelector(".given").textContent,
            ...[...card.querySelectorAll(".token")].map((one) =>
                one.textContent + getComputedStyle(one).backgroundColor)]);
    """
    before = page.run(look)
    page.open(storyteller)
    assert not page.all(".answer")
    page.fill("#prompt", "Another")
    page.set(temperature=0.5)
    page.show_panel("history")
    page.click(".past")
    assert page.run(look) == before
    assert page.one("#prompt").get_property("value") == "A new prompt"
    assert page.one("#set-temperature").get_property("value") == "1"
    assert not page.one("#seed-lock").is_selected()
    page.click(".past")
    assert len(page.all(".answer")) == 2, "it is there once"
    page.all(".answer .token")[3].click()
    page.see(lambda: page.visible(".alternative:not(:disabled)"), "alternatives")[0].click()
    page.see(lambda: len(page.all(".answer")) == 3 and page.is_done(), "a branch")
    page.click(".answer .actions button:nth-child(3)")
    assert '"prompt": "A new prompt"' in page.text("#code-text")
    page.click("#code .close")
    page.click(".answer:nth-child(3) .actions button:last-child")
    assert page.one("#seed-lock").is_selected(), "only on demand"
    text = page.story(".run .answer:nth-child(3)")
    page.generate()
    assert page.story(".run:first-child .answer:nth-child(2)") == text, "the same seed and settings sample the same"


def test_a_link_carries_prompt_and_settings_in_its_fragment(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """Browsers never send a fragment. The link starts nothing, and a reload does not apply it again."""
    server = start_storyteller()
    page.open(server)
    prompt = 'Grüße & "quotes" #1?\nnext'
    page.run("document.querySelector('#prompt').value = arguments[0]", prompt)
    page.set(temperature=1.3, max_tokens=7, seed=5, stop="a\nb", logit_bias="11: -5")
    page.run("document.querySelector('#set-ignore_eos').click()")
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.click("#share")
    page.see(lambda: page.text("#share") == "Copied", "copied")
    link = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    address, _, fragment = link.partition("#")
    assert address == f"{server.url}/"
    assert parse_qs(fragment) == {
        "prompt": [prompt.replace("\n", "\r\n") if "\r" in fragment else prompt],
        "temperature": ["1.3"],
        "max_tokens": ["7"],
        "seed": ["5"],
        "stop": ["a\nb"],
        "logit_bias": ["11: -5"],
        "ignore_eos": ["on"],
        "top_k": ["50"],
        "top_p": ["0.95"],
    }
    page.run("localStorage.clear()")
    page.requested_urls()
    page.driver.get("about:blank")
    page.driver.get(link)
    page.see(lambda: page.one("#prompt").get_property("value") == prompt, "the prompt")
    for name, value in (("temperature", "1.3"), ("max_tokens", "7"), ("seed", "5"), ("stop", "a\nb")):
        assert page.one(f"#set-{name}").get_property("value") == value
    assert page.one("#set-ignore_eos").is_selected()
    assert page.one("#seed-lock").is_selected()
    assert page.driver.current_url == f"{server.url}/"
    assert not page.all(".answer")
    assert not any("temperature" in url for url in page.requested_urls() if not url.startswith(link[:40] + "#"))
    assert "temperature=" not in server.log
    page.driver.get(f"{server.url}/#prompt=Only+this")
    page.see(lambda: page.one("#prompt").get_property("value") == "Only this", "a link on the open page")
