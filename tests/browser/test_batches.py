"""The playground in a real browser: files of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def write_lines(file: Path, *bodies: dict[str, Any]) -> str:
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def open_batches(page: Any, server: Any) -> None:
    page.open(server)
    page.run("document.querySelector('#tab-batch').click()")


def state(page: Any) -> str:
    return page.text(".batch .state")  # type: ignore[no-any-return]  # Selenium returns Any


@pytest.mark.parametrize("width", [1280, 390])
def test_a_file_is_answered_with_progress(page: Any, chatty: Any, tmp_path: Path, width: int) -> None:
    """Answers and refused lines are saved as files."""
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.emulate(width=width, height=844)
    open_batches(page, chatty)
    name = f"questions{width}.jsonl"
    bodies = [{"prompt": "Once", "max_tokens": 20, "temperature": temperature} for temperature in [1] * 30 + [9]]
    page.one("#batch-file").send_keys(write_lines(tmp_path / name, *bodies))
    page.see(lambda: page.text(".batch h3") == name, "the batch")
    page.see(lambda: state(page) == "completed", "it is done")
    bar = page.one(".batch progress")
    assert bar.get_attribute("max") == bar.get_attribute("value") == "31"
    assert page.text(".batch .facts") == "31 of 31 lines · 1 failed · completions"
    for button, number in ((1, 30), (2, 1)):
        page.click(f".batch .actions button:nth-child({button})")
        suffix = "answers" if number > 1 else "errors"
        file = tmp_path / f"questions{width}-{suffix}.jsonl"
        text = page.see(lambda file=file: file.exists() and file.read_text(), "the file")
        assert len(text.splitlines()) == number
        assert "custom_id" in text


def test_progress_is_shown_while_it_runs_and_a_batch_can_be_cancelled(page: Any, chatty: Any, tmp_path: Path) -> None:
    open_batches(page, chatty)
    bodies = [{"prompt": "Once", "max_tokens": 400, "ignore_eos": True}] * 400
    page.one("#batch-file").send_keys(write_lines(tmp_path / "long.jsonl", *bodies))
    bar = page.see(lambda: page.one(".batch progress[max='400']"), "the lines are counted")
    page.see(lambda: int(page.one(".batch progress").get_attribute("value")) > 0, "some are answered")
    assert state(page) == "in progress"
    assert bar
    page.click(".batch .actions button:last-child")
    page.see(lambda: state(page) == "cancelled", "it is cancelled")


def test_a_wrong_file_is_refused_with_its_reason(page: Any, chatty: Any, tmp_path: Path) -> None:
    """The page checks the first line; the service all of them."""
    open_batches(page, chatty)
    page.see(lambda: page.all(".batch") or page.visible("#batch-empty"), "the list")
    file = tmp_path / "wrong.jsonl"
    for content, problem in (
        ("prompt,max_tokens\n", "wrong.jsonl is not JSON Lines: its first line is not a JSON object."),
        ("{}", "The first line of wrong.jsonl needs a url: /v1/completions, /v1/chat/completions, /v1/score."),
    ):
        file.write_text(content)
        page.one("#batch-file").send_keys(str(file))
        page.see(lambda problem=problem: page.text("#batch-problem") == problem, problem)
    assert not [url for url in page.requested_urls() if url.endswith("/v1/files")]
    write_lines(file, {"prompt": "a"})
    file.write_text(file.read_text() * 2)
    page.one("#batch-file").send_keys(str(file))
    page.see(lambda: state(page) == "failed", "it failed")
    assert page.text(".batch .problems").startswith("Line 2: ")


def test_without_a_store_there_are_no_batches(page: Any, storyteller: Any) -> None:
    page.open(storyteller)
    assert not page.visible("#tab-batch")
    assert not [url for url in page.requested_urls() if "/v1/batches" in url]
