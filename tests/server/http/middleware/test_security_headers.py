"""Security headers and CORS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.caller import ApiKey, digest_of
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing

ORIGIN = "https://app.example.com"
KEY = "dg2-0123456789abcdef"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


@pytest.mark.parametrize("path", ["/", "/livez", "/v1/models", "/v1/nothing", "/once", "/once?top_k=x", "/metrics"])
def test_every_response_is_private_data(client: Any, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"


def test_streams_pages_and_assets_keep_their_own_headers(client: Any) -> None:
    stream = client.complete(prompt="a", stream=True)
    assert stream.headers.get_list("cache-control") == ["no-cache, no-transform"]
    assert stream.headers["x-content-type-options"] == "nosniff"
    [policy] = client.get("/docs").headers.get_list("content-security-policy")
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert client.get("/docs/assets/redoc.css").headers.get_list("cache-control") == ["public, max-age=3600"]


def test_an_internal_error_has_security_headers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client.scene.app.state.service.model.__class__, "check_name", fail)
    answer = client.complete(prompt="a")
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")


def test_cors_is_off_by_default(client: Any) -> None:
    answer = client.get("/v1/models", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    refused = client.request("OPTIONS", "/v1/models", headers=PREFLIGHT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert ORIGIN in refused.json()["error"]["message"]
    assert "the setting cors_origins is not set" in refused.json()["error"]["message"]
    assert client.request("OPTIONS", "/v1/models", headers={"origin": ORIGIN}).status_code == 405


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
def test_a_preflight_needs_no_key(open_client: Callable[..., Any], origins: tuple[str, ...]) -> None:
    """The request itself needs a key, and the page can read its refusal."""
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
        assert answer.headers["access-control-expose-headers"] == "*", "all response headers"
        assert "Origin" in answer.headers["vary"]


@pytest.mark.reported("OpenAI's JavaScript SDK in Chromium: Failed to fetch; Ollama's issues on x-stainless headers")
@pytest.mark.parametrize(
    "names",
    [
        "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-retry-count",
        "user-agent, idempotency-key, openai-organization, openai-beta",
        "traceparent",
        "x-a-header-of-next-year",
        "",
        None,
    ],
)
@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
def test_a_trusted_origin_may_send_any_header(
    open_client: Callable[..., Any], origins: tuple[str, ...], names: str | None
) -> None:
    client = open_client(access=Access(cors_origins=origins))
    headers = {name: value for name, value in PREFLIGHT.items() if name != "access-control-request-headers"}
    if names is not None:
        headers["access-control-request-headers"] = names
    answer = client.request("OPTIONS", "/v1/chat/completions", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("access-control-allow-headers") == names
    assert {"Origin", "Access-Control-Request-Headers"} <= set(answer.headers["vary"].split(", "))
    assert "access-control-allow-private-network" not in answer.headers


@pytest.mark.reported("Chrome's private network access, in Ollama's and gptme's issues on pages that call localhost")
def test_a_trusted_origin_may_call_a_private_network(open_client: Callable[..., Any]) -> None:
    client = open_client(access=Access(cors_origins=(ORIGIN,)))
    headers = {**PREFLIGHT, "access-control-request-private-network": "true"}
    answer = client.request("OPTIONS", "/v1/completions", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_a_trusted_origin_may_use_any_method_and_can_read_a_405(open_client: Callable[..., Any], method: str) -> None:
    client = open_client(access=Access(cors_origins=(ORIGIN,)))
    preflight = client.request("OPTIONS", "/v1/x", headers={**PREFLIGHT, "access-control-request-method": method})
    assert preflight.status_code == 200
    assert method in preflight.headers["access-control-allow-methods"].split(", ")
    assert client.request("PUT", "/v1/models", headers={"origin": ORIGIN}).headers["access-control-allow-origin"]


@pytest.mark.reported("Chromium's console: a refused preflight was plain text that named neither origin nor setting")
@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"origin": "https://other.example.com"}, 403, "origin"),
        ({"origin": "null"}, 403, "origin"),
        ({"access-control-request-method": "FETCH"}, 400, "access-control-request-method"),
        ({"access-control-request-headers": "a b"}, 400, "access-control-request-headers"),
        ({"access-control-request-headers": "content-type,x:y"}, 400, "access-control-request-headers"),
        ({"access-control-request-headers": "x" * 4097}, 400, "access-control-request-headers"),
    ],
)
def test_a_refused_preflight_has_its_reason(
    open_client: Callable[..., Any], changed: dict[str, str], status: int, param: str
) -> None:
    client = open_client(access=Access(cors_origins=(ORIGIN,)))
    answer = client.request("OPTIONS", "/v1/completions", headers={**PREFLIGHT, **changed})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert answer.headers["x-request-id"]
    if param == "origin":
        assert changed["origin"] in error["message"]
        assert "the setting cors_origins does not list this origin" in error["message"]
        assert ORIGIN not in error["message"], "the error does not reveal the setting"
        assert "access-control-allow-origin" not in answer.headers
    tgi = client.request("OPTIONS", "/generate", headers={**PREFLIGHT, **changed}).json()
    assert tgi["error_type"] == "validation"


def test_another_origin_can_not_read_responses(open_client: Callable[..., Any]) -> None:
    client = open_client(access=Access(cors_origins=("https://other.example.com",)))
    answer = client.get("/version", headers={"origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


def test_a_trusted_origin_can_read_an_internal_error(
    open_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    client = open_client(access=Access(cors_origins=(ORIGIN,)))
    monkeypatch.setattr(client.scene.app.state.service.model.__class__, "check_name", fail)
    answer = client.post("/v1/completions", json={"prompt": "a"}, headers={"origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, ORIGIN)
