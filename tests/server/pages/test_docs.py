"""The documentation pages are self-contained."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

STATIC_FOLDER = Path(__file__).parents[3] / "src" / "distilgpt2_api" / "server" / "pages" / "static" / "docs"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_load_nothing_from_other_origins(client: Any, page: str) -> None:
    shown = client.get(page)
    html = shown.text
    assert "//" not in html.replace("<!doctype", "")
    assert "<script>" not in html
    policy = dict(rule.split(" ", 1) for rule in shown.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    for asset in re.findall(r'(?:src|href)="(docs/assets/[^"]+)"', html):
        answer = client.get(f"/{asset}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
        plain = client.get(f"/{asset}", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content


def test_the_vendored_pages_load_nothing_from_a_cdn() -> None:
    for archive in STATIC_FOLDER.glob("*.gz"):
        assert b"https://cdn" not in gzip.decompress(archive.read_bytes())


def test_only_the_pages_own_assets_are_served(client: Any) -> None:
    for name in ("README.md", "..%2F..%2Fapp.py", "swagger.html", "licenses"):
        assert client.get(f"/docs/assets/{name}").status_code == 404
