"""Links out of docs/ on the site: to the repository if it has an address, else to the file's name."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from website.source_links import on_page_markdown, on_post_page, rewrite_links

ADDRESS = "https://example.org/owner/name/blob/abc"


@pytest.mark.parametrize(
    ("text", "without_address", "with_address"),
    [
        ("[`Makefile`](../../Makefile)", "`Makefile`", f"[`Makefile`]({ADDRESS}/Makefile)"),
        ("[the map](../../README.md#use-it)", "the map (`README.md`)", f"[the map]({ADDRESS}/README.md#use-it)"),
        ("[ours](../../deploy/kubernetes)", "ours (`deploy/kubernetes`)", f"[ours]({ADDRESS}/deploy/kubernetes)"),
        ("[Azure](azure.md)", "[Azure](azure.md)", "[Azure](azure.md)"),
        ("[up](../api.md#keys)", "[up](../api.md#keys)", "[up](../api.md#keys)"),
    ],
)
def test_a_link_points_to_the_file(text: str, without_address: str, with_address: str) -> None:
    assert rewrite_links(text, "deploy/azure.md", "") == without_address
    assert rewrite_links(text, "deploy/azure.md", ADDRESS) == with_address


@pytest.mark.parametrize("target", ["../nowhere.py", "../../outside"])
def test_a_broken_link_is_reported(target: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mkdocs"):
        rewrite_links(f"[x]({target})", "index.md", "")
    assert f"index.md links to {target}" in caplog.text


def test_code_blocks_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCS_SOURCE_URL", f"{ADDRESS}/")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    text = "[a](../README.md)\n\n```md\n[a](../README.md)\n```\n\n[a](../README.md)\n"
    link = f"[a]({ADDRESS}/README.md)"
    assert on_page_markdown(text, page=page) == f"{link}\n\n```md\n[a](../README.md)\n```\n\n{link}\n"


@pytest.mark.parametrize(
    ("html", "is_reported"),
    [
        ('<script src="https://example.org/x.js">', True),
        ('<link rel="stylesheet" href="//example.org/x.css">', True),
        ('<img alt="x" src="https://example.org/x.png">', True),
        ('<link rel="canonical" href="https://example.org/">', False),
        ('<a href="https://example.org/">', False),
        ('<script src="assets/x.js">', False),
    ],
)
def test_a_request_to_another_host_is_reported(html: str, is_reported: bool, caplog: pytest.LogCaptureFixture) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    with caplog.at_level(logging.WARNING, "mkdocs"):
        assert on_post_page(html, page=page) == html
    assert bool(caplog.text) == is_reported
