"""The playground in a real browser: the code that it offers, and the data that it stores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

KEY = "dg2-0123456789abcdef"


def run_code(command: list[str]) -> str:
    environment = {**os.environ, "KEY": KEY, "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_offered_code_generates_the_same_text(page: Any, start_storyteller: Callable[..., Any]) -> None:
    """With curl, Python and OpenAI's client, as shown and as copied; the reader inserts the key."""
    server = start_storyteller(api_keys=f"alice:{KEY}")
    page.enter_key(server, KEY)
    page.fill("#prompt", "It's \"odd\", said a \\ to 'em:")
    page.set(max_tokens=20, stop="\\n\\n\nnever", bad_words="it's")
    page.generate()
    text = page.run(
        "return [...document.querySelectorAll('.token:not(.cut)')].map((node) => node.textContent).join('')"
    )
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    for name, command in (
        ("curl", ["bash", "-c"]),
        ("Python", [sys.executable, "-c"]),
        ("OpenAI client", [sys.executable, "-c"]),
    ):
        page.run("document.querySelector('.answer .actions button:last-child').click()")
        page.click(f"#code-languages .chip:has([value='{name}']) span")
        code = page.run("return document.querySelector('#code-text').textContent")
        page.click("#code-copy")
        page.see(lambda: page.text("#code-copy") == "Copied", "copied")
        copied = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        assert copied == code
        output = run_code([*command, code])
        if name == "curl":
            assert "[DONE]" in output
        else:
            assert output == text.replace("↵", "")
        page.click("#code .close")
    page.errors()


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
    page.run("""
        const entry = { time: 1, promptText: "old", texts: ["text"], values: {} };
        localStorage.setItem("distilgpt2-playground:/:history", JSON.stringify(Array(30).fill(entry)));
    """)
    page.open(storyteller)
    page.fill("#prompt", "A new prompt")
    page.generate()
    text = page.story()
    assert [node.text for node in page.all(".past-prompt")] == ["A new prompt", *["old"] * 29]
    page.open(storyteller)
    page.fill("#prompt", "Another")
    page.click(".past")
    assert page.one("#prompt").get_attribute("value") == "A new prompt"
    assert page.run("return document.querySelector('.tokens.plain').textContent") == text
    page.generate()
    assert page.story() == text, "the same seed and settings draw the same"
    page.click("#history-clear")
    assert not page.all(".past")
    assert "old" not in page.run("return JSON.stringify({...localStorage})")
