"""The playground in a real browser: a conversation with a model that has a chat template."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

FIRST = "Once upon a time there was a king."


def say(page: Any, text: str) -> None:
    number = len(page.all("#chat .answer"))
    page.one("#chat-input").send_keys(text, Keys.ENTER)
    page.see(lambda: len(page.all("#chat .answer:not(.running)")) == number + 1, "the answer")


def answer_of(server: Any, *messages: tuple[str, str], **fields: Any) -> str:
    body = {"messages": [{"role": role, "content": content} for role, content in messages], **fields}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=30).json()
    return answer["choices"][0]["message"]["content"]  # type: ignore[no-any-return]  # JSON is Any


def test_a_model_without_a_template_has_no_chat(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    assert [node.text for node in page.visible("#views [role=tab]")] == ["Write", "Score"]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_conversation_streams_with_tokens_and_settings(page: Any, chatty: Any, width: int) -> None:
    """Each answer is the service's own for all messages so far, and has colours, alternatives, figures and code."""
    page.emulate(width=width, height=844)
    page.open(chatty)
    page.set(max_tokens=20, seed=7)
    page.run("document.querySelector('#tab-chat').click()")
    page.run("document.querySelector('.system').open = true")
    page.one("#chat-system").send_keys("A tale.")
    say(page, FIRST)
    sampling = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 7, "max_completion_tokens": 20}
    begin = [("system", "A tale."), ("user", FIRST)]
    first = answer_of(chatty, *begin, **sampling)
    assert page.joined(page.tokens("#chat li:nth-child(2)")) == first
    say(page, "And then?")
    second = answer_of(chatty, *begin, ("assistant", first), ("user", "And then?"), **sampling)
    assert page.joined(page.tokens("#chat li:nth-child(4)")) == second
    assert page.text("#chat li:nth-child(4) .facts").startswith("20 tokens · ")
    gap = """
        const bottom = document.querySelector("#chat li:last-child .answer").getBoundingClientRect().bottom;
        return document.querySelector("#chat .composer").getBoundingClientRect().top - bottom;
    """
    page.see(lambda: page.run(gap) >= 0, "the composer does not cover the newest answer")
    page.run("document.querySelector('#chat li:nth-child(4) .token').click()")
    page.see(lambda: page.visible("#alternatives"), "alternatives")
    assert len(page.all(".alternative")) >= 5
    assert not page.all(".alternative:not(:disabled)"), "to read, because a chat has no token ids"
    page.active.send_keys(Keys.ESCAPE)
    page.click("#chat li:nth-child(2) .actions button:last-child")
    code = page.text("#code-text")
    assert "/v1/chat/completions" in code
    assert "logprobs" not in code
    assert "stream" not in code
    page.click("#code .close")

    page.open(chatty)
    page.run("document.querySelector('#tab-chat').click()")
    assert page.joined(page.tokens("#chat li:nth-child(4)")) == second, "it stays after a reload"
    page.click("#chat li:nth-child(3) .actions button")
    assert page.one("#chat-input").get_property("value") == "And then?"
    assert len(page.all("#chat-messages > li")) == 2
    page.click("#chat-clear")
    assert not page.all("#chat-messages > li")


def test_another_answer_replaces_the_last(page: Any, chatty: Any) -> None:
    page.open(chatty)
    page.set(max_tokens=30)
    page.click("#tab-chat")
    say(page, FIRST)
    text = page.joined(page.tokens("#chat .answer"))
    page.click("#chat .answer .actions button")
    page.see(lambda: page.all("#chat .answer:not(.running)"), "another answer")
    assert page.joined(page.tokens("#chat .answer")) != text
    assert len(page.all("#chat-messages > li")) == 2


def test_a_failure_keeps_what_was_said(page: Any, chatty: Any) -> None:
    page.open(chatty)
    page.click("#tab-chat")
    page.one("#chat-input").send_keys(Keys.ENTER)
    assert page.text("#chat-problem") == "Write a message first."
    page.set(guided_regex="(a")
    page.one("#chat-input").send_keys(FIRST, Keys.ENTER)
    page.see(lambda: page.visible("#set-guided_regex-error"), "the problem")
    assert page.one("#chat-input").get_property("value") == FIRST
    assert not page.all("#chat-messages > li")
    assert all("400" in error for error in page.errors())


def test_an_answer_can_be_stopped(page: Any, chatty: Any) -> None:
    page.open(chatty)
    page.set(max_tokens=450)
    page.run("document.querySelector('#set-ignore_eos').click()")
    page.click("#tab-chat")
    page.slow_down()
    page.one("#chat-input").send_keys(FIRST, Keys.ENTER)
    page.see(lambda: page.all("#chat .token"), "the first token")
    page.one("body").send_keys(Keys.ESCAPE)
    page.see(lambda: "stopped by you" in page.text("#chat .facts"), "it has ended")
    page.see(lambda: chatty.metric("distilgpt2_running_sequences") == 0, "nothing runs")


def test_markup_stays_text_in_a_chat(page: Any, chatty: Any) -> None:
    page.open(chatty)
    page.set(guided_regex=r"<b onclick=alert\(1\)>&amp;</b>", max_tokens=40)
    page.click("#tab-chat")
    say(page, "<img src=x onerror=alert(1)>")
    assert page.text(".said .story") == "<img src=x onerror=alert(1)>"
    assert page.joined(page.tokens("#chat .answer")) == "<b onclick=alert(1)>&amp;</b>"
    assert not page.all("main img, main b, main script")
