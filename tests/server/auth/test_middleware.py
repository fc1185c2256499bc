"""Every route needs a key, and a refusal reveals nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute

from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing, KeyTable

KEY = "dg2-0123456789abcdef"
METRICS_KEY = "dg2-metrics-89abcdef"
BEARER = {"authorization": f"Bearer {KEY}"}
PROBES = {"/livez", "/readyz", "/healthz", "/health", "/ping"}
PAGES = {"/docs": 200, "/redoc": 200, "/docs/assets/name": 404, "/ui": 200, "/ui/assets/name": 404}
"""Open, since a browser can't send a key when it opens a page. No asset is called `name`."""
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
REFUSAL = {
    "error": {
        "message": "no valid API key: send one as `Authorization: Bearer KEY`",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}


def ring(*names: str) -> KeyRing:
    return KeyRing(tuple(ApiKey(name=name, digest=digest_of(KEY.encode())) for name in names or ("alice",)))


@pytest.fixture
def locked(open_client: Callable[..., Any]) -> Any:
    """A client of a service with one key."""
    return open_client(access=Access(keys=ring()))


def test_every_route_except_probes_and_pages_needs_a_key(locked: Any) -> None:
    """Tries every route with every method, then unknown paths."""
    routes = [route for route in locked.scene.app.routes if isinstance(route, APIRoute)]
    paths = {route.path_format.replace("{", "").replace("}", "") for route in routes}
    assert paths > PROBES | PAGES.keys()
    num_requests = 0
    for path in [*paths, "/v1/nothing", "/nothing/at/all", "/livez/", "/metrics/", "//livez", "/LIVEZ", "/favicon.ico"]:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = locked.request(method, path)
            if path.rstrip("/") in PROBES:
                assert answer.status_code in {200, 405}, path
                continue
            if path in PAGES:
                expected = PAGES[path] if method in {"GET", "HEAD"} else 405
                assert answer.status_code == expected, (method, path)
                continue
            num_requests += 1
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-should-retry"] == "false"
    assert num_requests > 150
    assert not locked.scene.runner.plans


def test_a_browser_gets_the_playground_at_the_root_without_a_key(locked: Any) -> None:
    """The page is static. What a program gets or sends there needs a key."""
    for method in ("GET", "HEAD"):
        assert locked.request(method, "/", headers=BROWSER).status_code == 200
        assert locked.request(method, "/v1/models", headers=BROWSER).status_code == 401
        assert locked.request(method, "/once", headers=BROWSER).status_code == 401
    page = locked.get("/", headers=BROWSER)
    assert page.content == locked.get("/ui").content
    assert not [word for word in ("organisation", "tiny", locked.scene.app.version) if word in page.text]
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert locked.request(method, "/", headers=BROWSER, json={"inputs": "a"}).status_code == 401
    for accept in ("*/*", "application/json", "text/html;q=0", "text/html;q=0.1, application/json", ""):
        assert locked.get("/", headers={"accept": accept}).status_code == 401
    for path in ("/ui/", "/ui/x", "/ui/assets", "/uix", "/ui%2Fassets", "/ui/../v1/models", "/ui/assets/../x"):
        assert locked.get(path, headers=BROWSER).status_code in {401, 404}, path
    assert not locked.scene.runner.plans


def test_all_refusals_are_the_same(locked: Any) -> None:
    """They reveal neither which paths exist nor how close a guess was."""
    for path in ("/v1/models", "/v1/nothing", "/once"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": KEY[:-1]}, {"authorization": KEY}):
            answer = locked.get(path, headers=headers)
            assert (answer.status_code, answer.json()) == (401, REFUSAL)


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/info"])
def test_tgis_routes_refuse_in_tgis_shape(locked: Any, path: str) -> None:
    answer = locked.request("POST" if path == "/" else "GET", path)
    assert (answer.status_code, answer.json()) == (
        401,
        {"error": REFUSAL["error"]["message"], "error_type": "validation"},
    )


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER   {KEY} "},
        {"X-API-Key": KEY},
    ],
)
def test_a_key_opens_every_route(locked: Any, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/version", "/"):
        assert locked.get(path, headers=headers).status_code == 200
    assert locked.post("/v1/completions", json={"prompt": "a"}, headers=headers).status_code == 200
    assert locked.get("/v1/nothing", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + KEY.encode())] * 2,
        [(b"authorization", b"Bearer " + KEY.encode()), (b"x-api-key", KEY.encode())],
        [(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer " + KEY.encode())],
        [(b"authorization", b"Basic " + KEY.encode())],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"")],
        [(b"x-api-key", b"")],
        [(b"authorization", b"Bearer \xff\xfe\x00" + KEY.encode())],
        [(b"authorization", b"Bearer " + b"k" * 65536)],
        [(b"authorization", b"Bearer " + KEY.encode() + b", Bearer " + KEY.encode())],
        [(b"authorization", b"Bearer\t" + KEY.encode())],
        [(b"cookie", b"authorization=Bearer " + KEY.encode())],
    ],
)
def test_invalid_headers_are_refused_without_an_error(
    locked: Any, build_call: Callable[..., Any], headers: list[tuple[bytes, bytes]]
) -> None:
    call = build_call(locked.scene.app, "/v1/models", headers=headers)
    locked.runner.run(call.run())
    assert call.status == 401


def test_a_key_in_a_query_is_not_accepted(locked: Any) -> None:
    for query in (f"api_key={KEY}", f"key={KEY}", f"authorization=Bearer {KEY}", f"access_token={KEY}"):
        assert locked.get(f"/v1/models?{query}").status_code == 401


def test_no_body_is_read_without_a_key(locked: Any, build_call: Callable[..., Any]) -> None:
    """The connection closes if the body is long."""
    cases: list[tuple[list[tuple[bytes, bytes]], bool]] = [
        ([], False),
        ([(b"content-length", b"65536")], False),
        ([(b"content-length", b"65537")], True),
        ([(b"content-length", b"9" * 5000)], True),
        ([(b"content-length", b"x")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ]
    for headers, is_closed in cases:
        call = build_call(locked.scene.app, "/v1/completions", method="POST", body=b"{}", headers=headers)
        locked.runner.run(call.run())
        assert call.status == 401
        assert not call.has_read_body
        assert ((b"connection", b"close") in call.sent[0]["headers"]) is is_closed


def test_the_same_routes_are_open_behind_a_proxys_prefix(open_client: Callable[..., Any]) -> None:
    client = open_client(access=Access(keys=ring()), root_path="/base")
    for path, status in (("/livez", 200), ("/base/livez", 200), ("/base", 401), ("/base/v1/models", 401)):
        assert client.get(path).status_code == status, path
    for path in ("/base/base/livez", "/baselivez", "/base//livez", "/other/livez"):
        assert client.get(path).status_code == 401, path


def test_a_refusal_is_counted_and_logged_once_without_the_sent_key(locked: Any) -> None:
    locked.get("/once upon a time", headers={"authorization": "Bearer guess"})
    locked.get("/v1/models", headers=BEARER)
    refused, admitted = locked.scene.log.calls
    assert (refused.kwargs["status"], refused.kwargs["route"]) == (401, "unmatched")
    assert "key" not in refused.kwargs
    assert admitted.kwargs["key"] == "alice"
    assert not any(word in str(locked.scene.log.calls) for word in ("guess", "once", KEY))
    assert "distilgpt2_auth_failures_total 1.0" in locked.get("/metrics", headers=BEARER).text


def test_metrics_may_have_their_own_key(open_client: Callable[..., Any]) -> None:
    """It opens nothing else, and other keys do not open the metrics, which show all callers' use."""
    metrics_key = KeyTable([ApiKey(name="metrics", digest=digest_of(METRICS_KEY.encode()))])
    bearer = {"authorization": f"Bearer {METRICS_KEY}"}
    client = open_client(access=Access(keys=ring(), metrics_key=metrics_key))
    assert client.get("/metrics", headers=bearer).status_code == 200
    assert client.get("/metrics", headers=BEARER).status_code == client.get("/metrics").status_code == 401
    assert client.get("/v1/models", headers=bearer).status_code == 401
    alone = open_client(access=Access(metrics_key=metrics_key))
    assert alone.get("/metrics").status_code == 401
    assert alone.get("/v1/models").status_code == alone.get("/metrics", headers=bearer).status_code == 200


def test_metrics_and_pages_may_be_open(open_client: Callable[..., Any]) -> None:
    client = open_client(access=Access(keys=ring(), has_public_metrics=True, has_public_docs=True))
    for path in ("/metrics", "/docs", "/redoc", "/openapi.json", "/docs/assets/redoc.css"):
        assert client.get(path).status_code == 200, path
    for path in ("/docs/other", "/docsy", "/v1/models", "/docs/../v1/models", "/docs/"):
        assert client.get(path).status_code == 401, path


def test_pages_are_open_and_their_document_is_not(locked: Any) -> None:
    """A browser can't send a key when it opens a page. The pages are the same in every installation."""
    for path in ("/ui", "/ui/assets/main.js", "/docs", "/redoc", "/docs/assets/redoc.css", "/docs/assets/document.js"):
        assert locked.get(path).status_code == 200, path
    assert locked.get("/openapi.json").status_code == 401
    assert locked.get("/openapi.json", headers=BEARER).status_code == 200


def test_the_document_marks_operations_that_need_a_key(open_client: Callable[..., Any]) -> None:
    """Without keys it marks none."""
    document = open_client(access=Access(keys=ring(), has_public_docs=True)).get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) is ("401" in operation["responses"]) is (path not in PROBES), path
    schema = document["paths"]["/generate"]["post"]["responses"]["401"]["content"]["application/json"]["schema"]
    assert schema["$ref"].endswith("/TgiErrorResponse")
    open_document = open_client().get("/openapi.json").text
    assert "securitySchemes" not in open_document
    assert '"401"' not in open_document


def test_a_caller_has_the_limits_of_its_key(locked: Any, build_call: Callable[..., Any]) -> None:
    keys = KeyRing(
        (ApiKey(name="alice", digest=digest_of(KEY.encode()), limits=CallerLimits(max_requests=3)),),
        default_limits=CallerLimits(max_requests=1, tokens_per_s=10.0),
    )
    caller = keys.find(KEY.encode())
    assert caller is not None
    assert (caller.name, caller.is_key) == ("alice", True)
    assert caller.limits == CallerLimits(max_requests=3, tokens_per_s=10.0)


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::1", 1), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("testclient", 1), "unknown"),
        (("9" * 100_000, 1), "unknown"),
        (("", 0), "unknown"),
        (None, "unknown"),
    ],
)
def test_without_keys_a_caller_is_an_address_which_is_not_logged(
    open_client: Callable[..., Any], build_call: Callable[..., Any], client: tuple[str, int] | None, name: str
) -> None:
    limits = CallerLimits(max_requests=2)
    scene = open_client(access=Access(address_limits=limits)).scene
    call = build_call(scene.app, "/version", client=client)
    records: list[Any] = []
    scene.app.router.routes.clear()

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        records.append(scope["state"]["request_record"])

    scene.app.router.default = keep
    asyncio.run(call.run())
    assert (records[0].caller.name, records[0].caller.limits, records[0].caller.is_key) == (name, limits, False)
    assert "key" not in records[0].log_fields()


@pytest.mark.parametrize("path", ["/metrics", "/metrics%0A"])
def test_an_ordinary_key_does_not_open_the_metrics_under_another_spelling(
    open_client: Callable[..., Any], path: str
) -> None:
    """The router's patterns accept a line end after the path."""
    metrics_key = KeyTable([ApiKey(name="prometheus", digest=digest_of(METRICS_KEY.encode()))])
    client = open_client(access=Access(keys=ring(), metrics_key=metrics_key))
    assert client.get(path, headers=BEARER).status_code == 401
