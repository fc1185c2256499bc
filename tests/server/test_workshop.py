"""The workshop's endpoints: `GET /` and a prompt for a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_the_root_says_that_it_is_well(client: Any) -> None:
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
        (b"/a/b//c/", "a/b//c/"),
        (b"/a%2Fb", "a/b"),
        (b"/%2Fdocs", "/docs"),
        (b"//docs", "/docs"),
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
        (b"/..", ".."),
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
def test_a_proxys_prefix_is_no_part_of_the_prompt(
    open_client: Callable[..., Any], build_call: Any, root_path: str, is_stripped: bool
) -> None:
    """Whether the proxy strips its prefix from the path or not."""
    client = open_client(root_path=root_path)
    path = "/once" if is_stripped else f"{root_path}/once"
    call = build_call(client.scene.app, path, query=b"max_new_tokens=6")
    client.runner.run(call.run())
    assert call.text == '{"generated_sequences":["once hello"]}'


@pytest.mark.parametrize(
    "path",
    ["/docs", "/redoc", "/openapi.json", "/metrics", "/healthz", "/livez", "/readyz", "/ping", "/health", "/version"],
)
def test_no_other_route_is_swallowed(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert '"generated_sequences":[' not in answer.text
    assert client.scene.runner.plans == []


@pytest.mark.parametrize("path", ["/v1/chat", "/v1", "/v1/", "/docs/x", "/favicon.ico", "/.well-known/security.txt"])
def test_reserved_paths_are_never_prompts(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert client.scene.runner.plans == []


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


def test_more_than_the_context_says_so(client: Any) -> None:
    error = client.get("/once?max_new_tokens=300").json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_new_tokens")
    assert "300 in the completion" in error["message"]
    assert client.get("/" + "a" * 300).json()["error"]["code"] == "context_length_exceeded"
