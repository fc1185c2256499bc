"""ProperDocs hooks: rewrite links that leave docs/, and refuse pages that load files from other hosts.

Pages link to files of the checkout, as in `../Dockerfile`, so that the links work in a repository browser. The site has
no such files: there the link leads to the repository, if DOCS_SOURCE_URL names it, or becomes plain text with the path.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"

LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^( *)(`{3,})[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|link\ rel="(?!canonical)[^>]*)\b[^>]*\b(?:src|href)="(?:https?:)?//""", re.VERBOSE
)

log = logging.getLogger("mkdocs.hooks.source_links")  # a warning there fails a strict build


class PageFile(Protocol):
    src_uri: str


class Page(Protocol):
    file: PageFile


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Rewrite the links that leave docs/."""
    source_url = os.environ.get("DOCS_SOURCE_URL", "").rstrip("/")
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [rewrite_links(markdown[end : fence.start()], page.file.src_uri, source_url), fence.group()]
        end = fence.end()
    return "".join([*parts, rewrite_links(markdown[end:], page.file.src_uri, source_url)])


def on_post_page(output: str, *, page: Page, **_: object) -> str:
    """Warn about resources from other hosts, which would learn about every reader."""
    if found := FOREIGN.search(output):
        log.warning("%s loads something from another host: %s", page.file.src_uri, found.group())
    return output


def rewrite_links(text: str, page: str, source_url: str) -> str:
    """`page` is the page's path in docs/."""

    def rewrite(link: re.Match[str]) -> str:
        label, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(DOCS, posixpath.dirname(page), target))
        if path.startswith(f"{DOCS}/"):
            return link.group()
        if path.startswith("..") or not (ROOT / path).exists():
            log.warning("%s links to %s, which is not in the checkout", page, target)
        if source_url:
            return f"[{label}]({source_url}/{path}{anchor or ''})"
        return label if posixpath.basename(path) in label else f"{label} (`{path}`)"

    return LINK.sub(rewrite, text)
