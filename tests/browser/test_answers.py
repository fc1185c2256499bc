"""The playground in a real browser: answers stay, and can be pinned, compared and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains


def titles(page: Any, within: str = "#answers") -> list[str]:
    return [node.text for node in page.all(f"{within} .answer h3")]


def branch(page: Any, card: str, index: int) -> None:
    """Choose, with the mouse, another token at a position of an answer."""
    number = len(page.all(".answer"))
    node = page.all(f"{card} .token")[index]
    page.run("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", node)
    ActionChains(page.driver).move_to_element(node).click().perform()
    row = page.see(lambda: page.visible(".alternative:not(:disabled)"), "alternatives")[0]
    ActionChains(page.driver).move_to_element(row).click().perform()
    page.see(lambda: len(page.all(".answer")) == number + 1 and page.is_done(), "the branch")


def test_runs_stay_and_the_newest_is_first(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    texts = []
    for temperature in (0.5, 1, 1.2):
        page.set(max_tokens=8, temperature=temperature)
        page.generate()
        texts.append(page.story())
        assert f"temperature {temperature}" in page.text(".run:first-child .given")
    shown = [page.story(f".run:nth-child({index}) .answer") for index in (3, 2, 1)]
    assert shown == texts
    page.click(".run:first-child .remove")
    page.click("#clear-answers")
    assert not page.all(".answer")
    page.show_panel("history")
    assert len(page.all(".past")) == 3
    page.click(".past")
    assert page.story() == texts[2]


def test_branches_stand_in_order_behind_their_parent(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=8, n=2)
    page.generate()
    for index in (5, 4):
        branch(page, ".run .answer:nth-child(1)", index)
    branch(page, ".run .answer:nth-child(2)", 2)
    assert titles(page) == ["Answer 1", "Branch 1", "Branch 3", "Branch 2", "Answer 2"]


def test_a_branch_by_mouse_opens_no_window(page: Any, storyteller: Any) -> None:
    """The pointer rests while tokens move below it, which browsers report like a movement."""
    page.open(storyteller)
    page.set(max_tokens=60)
    page.generate()
    for index in (3, 9, 14, 20):
        branch(page, ".run .answer:nth-child(1)", index)
        page.driver.execute_async_script("setTimeout(arguments[0], 100)")
        assert not page.visible("#alternatives")


def test_pinned_answers_are_compared_and_stay_after_a_reload(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=10, n=2, temperature=0.5)
    page.generate()
    page.click(".answer:nth-child(2) .pin")
    page.set(n=1, temperature=1)
    page.generate()
    page.click(".run:first-child .pin")
    assert titles(page, "#pinned") == ["Answer 2", "Answer"]
    assert titles(page) == ["Answer 1"]
    first, second = (node.rect for node in page.all("#pinned .answer"))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    marked = [
        [node.text for node in card.find_elements("css selector", "mark")] for card in page.all("#pinned .answer")
    ]
    assert [(one[0], one[1]) for one in marked] == [("2", "0.5"), ("1", marked[1][1])]
    assert marked[1][0] == "1"
    text = page.story("#pinned .answer")
    page.open(storyteller)
    assert titles(page, "#pinned") == ["Answer 2", "Answer"]
    assert page.story("#pinned .answer") == text
    page.click("#pinned .pin")
    assert titles(page, "#pinned") == ["Answer"]
    assert titles(page) == ["Answer 2"]
    page.click("#unpin")
    assert not page.visible("#pinned")
    page.open(storyteller)
    assert not page.all(".answer")


def test_an_unpinned_answer_returns_to_its_place(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=5, n=3)
    page.generate()
    page.click(".answer:nth-child(2) .pin")
    assert titles(page) == ["Answer 1", "Answer 3"]
    page.click("#pinned .pin")
    assert titles(page) == ["Answer 1", "Answer 2", "Answer 3"]


@pytest.mark.parametrize("scope", ["pinned", "all"])
def test_answers_are_exported_with_their_settings(page: Any, storyteller: Any, tmp_path: Path, scope: str) -> None:
    allow = {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": True}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
    page.open(storyteller)
    prompt = "| a `` b ```\n# c"
    page.run("document.querySelector('#prompt').value = arguments[0]", prompt)
    page.set(max_tokens=10, n=2, seed=3, stop="x|y")
    page.generate()
    branch(page, ".run .answer:nth-child(1)", 4)
    texts = [page.story(f".run .answer:nth-child({index})") for index in (1, 2, 3)]
    page.click(".answer:nth-child(2) .pin")
    page.click(f"[data-export='{scope} json']")
    file = tmp_path / "answers.json"
    answers = json.loads(page.see(lambda: file.exists() and file.read_text(), "the file"))["answers"]
    assert [answer["title"] for answer in answers] == ["Branch 1", "Answer 1", "Answer 2"][: len(answers)]
    assert len(answers) == (1 if scope == "pinned" else 3)
    assert [answer["text"] for answer in answers] == [texts[1], texts[0], texts[2]][: len(answers)]
    for answer in answers:
        assert answer["prompt"] == prompt
        assert answer["model"] == "storyteller"
        assert answer["finish_reason"] == "length"
        sampling = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "max_tokens": 10, "seed": 3, "stop": ["x|y"]}
        assert answer["settings"] == sampling | ({} if answer["title"].startswith("Branch") else {"n": 2})
        assert "".join(token["text"] for token in answer["tokens"]) == answer["text"]
        assert all(token["logprob"] <= 0 and token["id"] >= 0 for token in answer["tokens"])
    page.click(f"[data-export='{scope} markdown']")
    file = tmp_path / "answers.md"
    text = page.see(lambda: file.exists() and file.read_text(), "the file")
    assert text.count("## ") == len(answers)
    for answer in answers:
        assert f"\n````text\n{prompt}\n````\n" in text
        assert f"text\n{answer['text']}\n" in text
    assert '| stop at | \\["x\\|y"\\] |' in text
    assert "| temperature | 0.8 |" in text


def test_presets_leave_length_and_seed_alone(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    page.set(max_tokens=33, n=2, seed=5)
    for name in ("Story", "Wild", "Careful", "Pure", "Balanced"):
        page.click(f".chip:has([value={name}]) span")
        values = [page.one(f"#set-{field}").get_property("value") for field in ("max_tokens", "n", "seed")]
        assert values == ["33", "2", "5"]
