"""HEAD requests, `/version` and `/robots.txt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

PROBES = ["/livez", "/readyz", "/healthz", "/health", "/ping"]


@pytest.mark.parametrize("path", [*PROBES, "/", "/version", "/v1/models", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_a_body(client: Any, path: str) -> None:
    assert client.request("HEAD", path).status_code == client.get(path).status_code == 200


def test_the_version_names_model_precision_and_kernels(client: Any) -> None:
    expected = {
        "model": "organisation/tiny",
        "precision": "f32",
        "kernels": "script",
        "has_chat": False,
        "has_batches": False,
    }
    assert client.get("/version").json() == {"version": client.scene.app.version, **expected}


def test_the_version_says_what_is_enabled(
    open_client: Callable[..., Any], open_batch_service: OpenBatchService
) -> None:
    """For the playground, which shows a view for each."""
    template = ChatTemplate("{{ messages[0].content }}", origin="test")
    version = open_client(chat_template=template, open_batch_service=open_batch_service).get("/version").json()
    assert (version["has_chat"], version["has_batches"]) == (True, True)


def test_robots_txt_disallows_everything(client: Any) -> None:
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
