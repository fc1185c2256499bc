"""The workshop's routes: `GET /`, and a prompt as a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.server.app import PROTOCOLS

ADDRESSES = """
/v1 /v1/ /v1/chat /v1/embeddings /v2 /v2/health/ready /v2/models /v1beta/models /docs/x /ui/x /redoc/x
/favicon.ico /apple-touch-icon.png /apple-touch-icon-120x120.png /apple-touch-icon-precomposed.png /site.webmanifest
/manifest.json /sw.js /service-worker.js /ads.txt /humans.txt /security.txt /sitemap.xml /sitemap_index.xml
/browserconfig.xml /crossdomain.xml /apple-app-site-association /.well-known/security.txt
/.well-known/appspecific/com.chrome.devtools.json /.well-known/acme-challenge/x /static/js/main.js.map
/robots933456.txt /_ah/health /_ah/warmup /_health /health/live /health/ready /healthz/ping /health_check
/health-check /healthcheck /metric /live /ready /liveness /readiness /startupz /status /up
/-/healthy /-/ready /debug/pprof
/actuator /actuator/health /nginx_status /stub_status /server-status /metrics/cadvisor /api/health /hc/live
/models /models/tiny /completions /chat/completions /embeddings /rerank /api /api/ /api/embed /api/x
/infill /load /server_info /get_model_info /health_generate /invocations
/predictions/gpt2 /openai/deployments/x/chat/completions /generate/v1/models /generate/health /engines/x/completions
/.env /.env.local /.env~ /.git/config /.DS_Store /.aws/credentials /wp-login.php /wp-admin/ /wp-content/plugins/x
/xmlrpc.php /index.php /phpinfo.php /phpmyadmin/ /config.json /config.php.bak /backup.zip /backup.sql.gz /dump.7z
/cgi-bin/luci /cgi-bin/.%2e/.%2e/bin/sh /boaform/admin/formLogin /HNAP1 /HNAP1/ /GponForm/diag_Form /owa/auth/logon.aspx
/index.jsp /login.action /login /admin /admin/login /administrator /console/ /manager/html /solr/admin/info/system
/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php /containers/json /remote/login /sdk /evox/about /nmaplowercheck1
/../../etc/passwd /..%2f..%2fetc%2fpasswd /%2e%2e/%2e%2e/etc/passwd /_next/static/x /@vite/env /trace.axd
/and/or
"""
"""Paths that platforms, monitors, browsers, SDKs of other servers and scanners request, from public logs and lists."""


def test_the_root_is_a_health_check(client: Any) -> None:
    answer = client.get("/")
    assert answer.json() == {"health": "ok", "version": client.scene.app.version, "model": "organisation/tiny"}


def test_every_generated_sequence_begins_with_the_prompt(client: Any) -> None:
    answer = client.get("/once upon", params={"max_new_tokens": 6, "num_return_sequences": 3})
    assert answer.status_code == 200
    assert answer.json() == {"generated_sequences": ["once upon hello"] * 3}


def test_it_samples_fifty_tokens_of_the_fifty_likeliest_by_default(client: Any) -> None:
    """As the workshop's own `pipeline` did."""
    client.get("/a")
    params = client.scene.runner.plans[0].rows[0].params
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (50, 1.0, 50, 1.0)


def test_sampling_can_be_chosen(client: Any) -> None:
    client.get("/a?temperature=0.5&top_k=3&top_p=0.25&seed=11&max_new_tokens=2")
    params = client.scene.runner.plans[0].rows[0].params
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p, params.seed) == (2, 0.5, 3, 0.25, 11)


@pytest.mark.parametrize(
    ("raw_path", "prompt"),
    [
        (b"/a/b// c/", "a/b// c/"),
        (b"/a%2Fb", "a/b"),
        (b"/and%2For", "and/or"),
        (b"/%2Fdocs", "/docs"),
        (b"//docs%20of", "/docs of"),
        (b"/once%20upon/", "once upon/"),
        (b"/models%20are", "models are"),
        (b"/.env%20has%20secrets.%20See%20/etc/passwd", ".env has secrets. See /etc/passwd"),
        (b"/she%20said:%20api/tags", "she said: api/tags"),
        (b"/wp-login.php%20", "wp-login.php "),
        (b"/index.php\xc3\xa9", "index.php\u00e9"),
        ("/東京/大阪.txt".encode(), "東京/大阪.txt"),
        ("/привет/мир".encode(), "привет/мир"),
        (b"/Models", "Models"),
        (b"/Mr.", "Mr."),
        (b"/python3.11", "python3.11"),
        (b"/state-of-the-art", "state-of-the-art"),
        (b"/well,/%20maybe", "well,/ maybe"),
        (b"/docs%20of", "docs of"),
        (b"/what%3F", "what?"),
        (b"/100%25", "100%"),
        (b"/%2525", "%25"),
        (b"/a+b", "a+b"),
        (b"/line%0Abreak", "line\nbreak"),
        (b"/%00", "\0"),
        (b"/%E6%9D%B1%E4%BA%AC", "東京"),
        ("/東".encode(), "東"),
        (b"/v1x", "v1x"),
        (b"/Metrics", "Metrics"),
        (b"/%", "%"),
        (b"/%zz", "%zz"),
    ],
)
def test_the_prompt_is_the_path_as_it_was_sent(client: Any, build_call: Any, raw_path: bytes, prompt: str) -> None:
    from urllib.parse import unquote

    call = build_call(client.scene.app, unquote(raw_path.decode()), raw_path=raw_path, query=b"max_new_tokens=1")
    client.runner.run(call.run())
    assert call.status == 200, call.text
    assert client.scene.runner.plans[0].rows[0].token_ids[:-1] == list(prompt.encode())


@pytest.mark.parametrize("raw_path", [b"/%FF", b"/a%C3", b"/%ED%A0%80"])
def test_a_path_that_is_not_utf8_is_refused(client: Any, build_call: Any, raw_path: bytes) -> None:
    call = build_call(client.scene.app, "/\ufffd", raw_path=raw_path)
    client.runner.run(call.run())
    assert call.status == 400
    assert '"param":"prompt"' in call.text


@pytest.mark.parametrize("root_path", ["/base", "/base/deep"])
@pytest.mark.parametrize("is_stripped", [True, False])
def test_a_proxys_prefix_is_not_part_of_the_prompt(
    open_client: Callable[..., Any], build_call: Any, root_path: str, is_stripped: bool
) -> None:
    """Whether or not the proxy strips its prefix from the path."""
    client = open_client(root_path=root_path)
    path = "/once" if is_stripped else f"{root_path}/once"
    call = build_call(client.scene.app, path, query=b"max_new_tokens=6")
    client.runner.run(call.run())
    assert call.text == '{"generated_sequences":["once hello"]}'


@pytest.mark.parametrize(
    "path",
    ["/docs", "/redoc", "/openapi.json", "/metrics", "/healthz", "/livez", "/readyz", "/ping", "/health", "/version"],
)
def test_no_other_route_is_shadowed(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert '"generated_sequences":[' not in answer.text
    assert client.scene.runner.plans == []


@pytest.mark.reported(
    "Azure's container start, browsers and scanners in public access logs: each got fifty tokens of text"
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_an_address_is_not_a_prompt(client: Any, method: str) -> None:
    for path in ADDRESSES.split():
        if PROTOCOLS.find(method, path) is not PROTOCOLS.default:
            continue  # A protocol has the path, and answers it.
        answer = client.request(method, path)
        assert answer.status_code == 404, path
        if method != "HEAD":
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert "/v1" in answer.json()["error"]["message"]
    assert client.scene.runner.plans == []


@pytest.mark.parametrize("raw_path", [b"/..", b"/../..", b"/%2e%2e", b"/v1/%FF", b"/a/b"])
def test_a_strange_address_is_not_a_prompt(client: Any, build_call: Any, raw_path: bytes) -> None:
    """Sent as raw bytes, because httpx would normalize it."""
    from urllib.parse import unquote

    call = build_call(client.scene.app, unquote(raw_path.decode()), raw_path=raw_path)
    client.runner.run(call.run())
    assert (call.status, client.scene.runner.plans) == (404, [])


def test_below_a_proxys_prefix_an_address_is_not_a_prompt(open_client: Callable[..., Any], build_call: Any) -> None:
    client = open_client(root_path="/base/deep")
    for path, status in (("/base/deep/wp-login.php", 404), ("/base/deep/once/upon", 404), ("/base/deep/once", 200)):
        call = build_call(client.scene.app, path, query=b"max_new_tokens=1")
        client.runner.run(call.run())
        assert call.status == status, path


@pytest.mark.reported(
    "Prometheus and Kubernetes probes with a slash behind the path; SDKs with a base URL that ends in one"
)
@pytest.mark.parametrize("root_path", ["", "/base"])
def test_a_trailing_slash_reaches_the_route(open_client: Callable[..., Any], root_path: str) -> None:
    client = open_client(root_path=root_path)
    for path in ("/livez", "/readyz", "/healthz", "/health", "/ping", "/metrics", "/version", "/info", "/v1/models"):
        for prefix in {"", root_path}:
            answer, expected = client.get(f"{prefix}{path}/"), client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, expected.headers["content-type"]), path
    assert client.get("/v1/models/tiny/").json()["id"] == "tiny"
    for path, body in (
        ("/v1/completions", {"prompt": "a"}),
        ("/generate", {"inputs": "a"}),
        ("/tokenize", {"prompt": "a"}),
    ):
        answer = client.post(f"{path}/", json=body)
        assert (answer.status_code, answer.json().keys()) == (200, client.post(path, json=body).json().keys())


@pytest.mark.parametrize("path", ["/docs/", "/redoc/", "/ui/"])
def test_a_page_keeps_its_address_since_its_links_are_relative(client: Any, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        f"no such URL: GET {path}; did you mean {path[:-1]}?",
    )


@pytest.mark.reported(
    "OpenAI clients with a base URL without /v1; Hugging Face's with an endpoint that ends in /generate"
)
@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("GET", "/models", "/v1/models"),
        ("HEAD", "/models", None),
        ("GET", "/models/tiny", "/v1/models/tiny"),
        ("POST", "/completions", "/v1/completions"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/chat/completions/", "/v1/chat/completions"),
        ("GET", "/chat/completions", "/v1/chat/completions"),
        ("OPTIONS", "/completions", "/v1/completions"),
        ("POST", "/batches", "/v1/batches"),
        ("GET", "/generate/v1/models", "/v1/models"),
        ("POST", "/generate/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/v1/completions", "/v1/completions"),
        ("POST", "//v1/completions", "/v1/completions"),
        ("GET", "//v1/models", "/v1/models"),
        ("GET", "/once/", "/once"),
    ],
)
def test_a_similar_address_is_suggested(client: Any, method: str, path: str, meant: str | None) -> None:
    answer = client.request(method, f"http://test{path}", json={} if method == "POST" else None)
    assert answer.status_code == 404
    if meant is not None:
        message = answer.json()["error"]["message"]
        assert message.endswith(f"; did you mean {meant}?"), message
    assert client.scene.runner.plans == []


@pytest.mark.reported("TGI's clients, which expect 404 for an unknown path")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/nope", "/some prompt", "/v1/nope"])
def test_only_a_get_finds_a_prompt(client: Any, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("max_new_tokens=0", "max_new_tokens"),
        ("max_new_tokens=x", "max_new_tokens"),
        ("max_new_tokens=99999999999999999999", "max_new_tokens"),
        ("num_return_sequences=0", "num_return_sequences"),
        ("num_return_sequences=5", "num_return_sequences"),
        ("temperature=nan", "temperature"),
        ("temperature=3", "temperature"),
        ("top_p=0", "top_p"),
        ("top_k=-1", "top_k"),
        ("seed=1.5", "seed"),
        ("max_tokens=5", "max_tokens"),
    ],
)
def test_a_wrong_parameter_is_named(client: Any, query: str, param: str) -> None:
    answer = client.get(f"/once?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_more_than_the_context_is_refused(client: Any) -> None:
    error = client.get("/once?max_new_tokens=300").json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_new_tokens")
    assert "300 in the completion" in error["message"]
    assert client.get("/" + "a" * 300).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.reported("a reviewer, whose /livez%0A was a probe and whose POST /v1/completions%0A a completion")
def test_a_trailing_line_break_or_encoded_slash_is_not_part_of_an_address(client: Any) -> None:
    """A path with white space is a prompt, and a slash sent as %2F is one of its characters."""
    for path in ("/livez%0A", "/ui%0A", "/once%2F", "/livez%2F"):
        assert client.get(f"{path}?max_new_tokens=1").json().keys() == {"generated_sequences"}, path
    assert client.get("/v1/models%0A").status_code == 404
    for path in ("/v1/completions%0A", "/generate%0A", "/generate%2F"):
        assert client.post(path, json={"prompt": "a"}).status_code == 404, path
