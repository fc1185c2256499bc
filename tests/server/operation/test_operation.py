"""HEAD requests, `/version` and `/robots.txt`."""

from __future__ import annotations

from typing import Any

import pytest

PROBES = ["/livez", "/readyz", "/healthz", "/health", "/ping"]


@pytest.mark.parametrize("path", [*PROBES, "/", "/version", "/v1/models", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_a_body(client: Any, path: str) -> None:
    assert client.request("HEAD", path).status_code == client.get(path).status_code == 200


def test_the_version_names_model_precision_and_kernels(client: Any) -> None:
    expected = {"model": "organisation/tiny", "precision": "f32", "kernels": "script"}
    assert client.get("/version").json() == {"version": client.scene.app.version, **expected}


def test_robots_txt_disallows_everything(client: Any) -> None:
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
