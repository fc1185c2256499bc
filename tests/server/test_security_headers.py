"""Headers that keep browsers from making more of an answer than it is; and which pages may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.api_key import ApiKey, digest_of
from distilgpt2_api.server.access import Access
from distilgpt2_api.server.api_keys import KeyRing

ORIGIN = "https://app.example.com"
KEY = "dg2-0123456789abcdef"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


@pytest.mark.parametrize("path", ["/", "/livez", "/v1/models", "/v1/nothing", "/once", "/once?top_k=x", "/metrics"])
def test_every_answer_is_data_for_its_reader_alone(client: Any, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"


def test_streams_pages_and_assets_keep_their_own(client: Any) -> None:
    stream = client.complete(prompt="a", stream=True)
    assert stream.headers.get_list("cache-control") == ["no-cache, no-transform"]
    assert stream.headers["x-content-type-options"] == "nosniff"
    [policy] = client.get("/docs").headers.get_list("content-security-policy")
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert client.get("/docs/assets/redoc.css").headers.get_list("cache-control") == ["public, max-age=3600"]


def test_a_mistake_of_ours_has_them_too(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client.scene.app.state.service.model.__class__, "check_name", fail)
    answer = client.complete(prompt="a")
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")


def test_no_other_site_may_ask_by_default(client: Any) -> None:
    answer = client.get("/v1/models", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.request("OPTIONS", "/v1/models", headers=PREFLIGHT).status_code == 405


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
def test_a_named_site_may_ask_before_it_has_a_key(open_client: Callable[..., Any], origins: tuple[str, ...]) -> None:
    """The preflight needs none, the request itself does, and its refusal can be read."""
    keys = KeyRing((ApiKey(name="alice", digest=digest_of(KEY.encode())),))
    client = open_client(access=Access(keys=keys, cors_origins=origins))
    allowed = "*" if "*" in origins else ORIGIN
    preflight = client.request("OPTIONS", "/v1/completions", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, allowed)
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    refused = client.complete(prompt="a")
    assert refused.status_code == 401
    for headers, status in (({}, 401), ({"authorization": f"Bearer {KEY}"}, 200)):
        answer = client.get("/v1/models", headers={"origin": ORIGIN, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, allowed)
        assert {"x-request-id", "retry-after"} <= set(answer.headers["access-control-expose-headers"].split(", "))


def test_an_unnamed_site_may_not(open_client: Callable[..., Any]) -> None:
    client = open_client(access=Access(cors_origins=("https://other.example.com",)))
    assert client.request("OPTIONS", "/v1/completions", headers=PREFLIGHT).status_code == 400
    assert "access-control-allow-origin" not in client.get("/version", headers={"origin": ORIGIN}).headers
