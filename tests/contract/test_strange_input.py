"""Strange input on every protocol: a 4xx in the protocol's own shape, and the service keeps working."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import DEADLINE_S, Service

Json = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """A route that reads a body: a small request, and the field that has its text."""

    path: str
    body: Json
    text: str = "prompt"
    """The name that an error about the text begins with."""
    is_tgi: bool = False
    is_ollama: bool = False
    is_llama: bool = False
    reads_ids: bool = False
    """Whether the text may be token ids."""
    number: str = ""
    """A parameter that is a whole number."""

    def with_text(self, text: object) -> Json:
        if self.text == "messages":
            return {**self.body, "messages": [{"role": "user", "content": text}]}
        return {**self.body, self.text: text}

    def check_error(self, answer: httpx.Response, *statuses: int) -> str:
        """The message of an error in this protocol's shape."""
        assert answer.status_code in statuses, answer.text
        assert answer.headers["x-request-id"]
        body = answer.json()
        if self.is_tgi:
            assert body.keys() == {"error", "error_type"}
            assert isinstance(body["error"], str)
            assert body["error_type"] == "validation"
            message: str = body["error"]
        elif self.is_ollama:
            assert body.keys() == {"error"}
            message = body["error"]
        elif self.is_llama:
            assert body.keys() == {"error"}
            assert body["error"].keys() == {"code", "message", "type"}
            assert body["error"]["code"] == answer.status_code
            message = body["error"]["message"]
        else:
            assert body.keys() == {"error"}
            error = body["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
            assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code"))
            message = error["message"]
        assert message
        assert "\n" not in message
        assert len(message) < 1000
        return message


PROTOCOLS = [
    Protocol("/v1/completions", {"prompt": "on", "max_tokens": 1}, reads_ids=True, number="max_tokens"),
    Protocol(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "on"}], "max_tokens": 1},
        text="messages",
        number="max_tokens",
    ),
    Protocol("/v1/score", {"input": "on"}, text="input", reads_ids=True),
    Protocol("/", {"inputs": "on", "parameters": {"max_new_tokens": 1}}, text="inputs", is_tgi=True),
    Protocol("/generate", {"inputs": "on", "parameters": {"max_new_tokens": 1}}, text="inputs", is_tgi=True),
    Protocol("/generate_stream", {"inputs": "on", "parameters": {"max_new_tokens": 1}}, text="inputs", is_tgi=True),
    Protocol("/api/generate", {"prompt": "on", "options": {"num_predict": 1}}, is_ollama=True, number="top_logprobs"),
    Protocol(
        "/api/chat",
        {"messages": [{"role": "user", "content": "on"}], "options": {"num_predict": 1}},
        text="messages",
        is_ollama=True,
        number="top_logprobs",
    ),
    Protocol("/api/show", {"model": ""}, text="model", is_ollama=True),
    Protocol("/completion", {"prompt": "on", "n_predict": 1}, is_llama=True, reads_ids=True, number="n_predict"),
    Protocol("/tokenize", {"prompt": "on"}),
    Protocol("/detokenize", {"tokens": [111]}, text="tokens"),
]

JSON_HEADERS = {"content-type": "application/json"}
BAD = (400, 422)


def only(protocols: list[Protocol]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("protocol", protocols, ids=lambda protocol: protocol.path)


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.path)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


NO_BLOCK_HELD = re.compile(r'^distilgpt2_kv_cache_usage_ratio(\{replica="\w+"\})? 0\.0$', re.MULTILINE)


@pytest.fixture(scope="module")
def client(small_server: Service, wait_until: Callable[..., Any]) -> Iterator[httpx.Client]:
    """After all tests no block is in use."""
    with httpx.Client(base_url=small_server.url, timeout=DEADLINE_S) as client:
        yield client
        wait_until(lambda: NO_BLOCK_HELD.search(client.get("/metrics").text), "no block is held")


@pytest.fixture(autouse=True)
def still_serves(client: httpx.Client, protocol: Protocol) -> Iterator[None]:
    """After each test the route still answers."""
    yield
    answer = client.post(protocol.path, json=protocol.body)
    assert answer.status_code == 200, answer.text


def post(
    client: httpx.Client, protocol: Protocol, content: bytes | str, headers: dict[str, str] | None = None
) -> httpx.Response:
    return client.post(protocol.path, content=content, headers=JSON_HEADERS | (headers or {}))


def with_raw_text(protocol: Protocol, raw: str) -> str:
    """The body as JSON, with the text inserted unescaped."""
    return json.dumps(protocol.with_text("@")).replace('"@"', raw)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"{'prompt': 'a'}",
        b'{"prompt": "a"} {}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"1" * 400 + b"}",
        b'{"a": \x00}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=repr,
)
def test_a_body_that_is_not_a_json_object_is_refused(client: httpx.Client, protocol: Protocol, content: bytes) -> None:
    protocol.check_error(post(client, protocol, content), *BAD)


@pytest.mark.parametrize("raw", [r'"\ud800"', r'"a\udfff"', '"\x01"', '"unfinished', "NaN", "-Infinity"])
def test_text_that_is_not_valid_json_is_refused(client: httpx.Client, protocol: Protocol, raw: str) -> None:
    """Lone surrogates, raw control characters, NaN and infinity."""
    protocol.check_error(post(client, protocol, with_raw_text(protocol, raw)), *BAD)


@pytest.mark.parametrize("value", [True, {}, 5, [None], [[]], [{}], [1.5], ["a", 1], [[True]]], ids=repr)
def test_a_text_of_another_type_is_refused_by_name(client: httpx.Client, protocol: Protocol, value: object) -> None:
    if protocol.is_llama and value == ["a", 1]:
        pytest.skip("texts and token ids together are one prompt there")
    answer = client.post(protocol.path, json=protocol.with_text(value))
    assert protocol.text in protocol.check_error(answer, *BAD)


@only([one for one in PROTOCOLS if one.reads_ids or one.text == "tokens"])
@pytest.mark.parametrize("token_id", [-1, 257, 2**31, 2**63, 2**64, 10**40])
def test_ids_outside_the_vocabulary_are_refused(client: httpx.Client, protocol: Protocol, token_id: int) -> None:
    answer = client.post(protocol.path, json=protocol.with_text([token_id]))
    assert protocol.text in protocol.check_error(answer, *BAD)


def test_unknown_and_duplicate_keys_are_refused_by_name(client: httpx.Client, protocol: Protocol) -> None:
    answer = client.post(protocol.path, json={**protocol.body, "promt": "a"})
    assert "promt" in protocol.check_error(answer, *BAD)
    body = json.dumps(protocol.body)
    assert protocol.text in protocol.check_error(post(client, protocol, body[:-1] + ", " + body[1:]), *BAD)


@only([one for one in PROTOCOLS if one.number])
@pytest.mark.parametrize("number", ["1" * 40, "-" + "9" * 40, "1e308", "0.1", '"1"', "true", "[1]"])
def test_absurd_numbers_are_refused_by_name(client: httpx.Client, protocol: Protocol, number: str) -> None:
    content = json.dumps({**protocol.body, protocol.number: "@"}).replace('"@"', number)
    assert protocol.number in protocol.check_error(post(client, protocol, content), *BAD)


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ({"content-type": "text/plain"}, (415, 422)),
        ({"content-type": "application/x-www-form-urlencoded"}, (415, 422)),
        ({"content-type": ""}, (415, 422)),
        ({"content-encoding": "gzip"}, (415, 422)),
        ({"content-encoding": "br"}, (415, 422)),
    ],
    ids=repr,
)
def test_other_kinds_of_body_are_refused(
    client: httpx.Client, protocol: Protocol, headers: dict[str, str], statuses: tuple[int, ...]
) -> None:
    protocol.check_error(post(client, protocol, json.dumps(protocol.body), headers), *statuses)


def test_a_megabyte_of_text_gets_an_answer(client: httpx.Client, protocol: Protocol) -> None:
    """Over the body's or the context's limit it is refused early. Tokenizing has no context limit."""
    answer = post(client, protocol, json.dumps(protocol.with_text("a" * 2**20)))
    if protocol.path == "/tokenize":
        assert answer.json()["count"] == 2**20
    else:
        protocol.check_error(answer, *((404,) if protocol.text == "model" else (400, 413, 422)))


@only([one for one in PROTOCOLS if one.text not in {"tokens", "model"}])
@pytest.mark.parametrize("text", ["\x00", "\ufeff", "\x7f\x1b[31m", "a\u202eb", "\U0010ffff", "e\u0301" * 40])
def test_any_unicode_is_text(client: httpx.Client, protocol: Protocol, text: str) -> None:
    """NUL, byte order mark, control characters, right-to-left marks, the last code point, combining marks."""
    answer = client.post(protocol.path, json=protocol.with_text(text))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_get_the_allowed_ones(client: httpx.Client, protocol: Protocol, method: str) -> None:
    answer = client.request(method, protocol.path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    if protocol.path == "/":
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, "only POST / is TGI's"
    else:
        protocol.check_error(answer, 405)


def test_a_body_shorter_than_its_length_is_not_a_request(small_server: Service, protocol: Protocol) -> None:
    """The client hangs up before the rest, so there is no answer and nothing was started."""
    body = json.dumps(protocol.body).encode()
    with socket.create_connection(("127.0.0.1", small_server.port), DEADLINE_S) as connection:
        connection.sendall(head_of(protocol, len(body) + 10) + body)
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(65536).startswith(b"HTTP/1.1 2")


def test_a_body_longer_than_its_length_is_cut_or_refused(small_server: Service, protocol: Protocol) -> None:
    """Bytes after the declared end are the next request, an invalid one, and never part of the body."""
    body = json.dumps(protocol.body).encode()
    with socket.create_connection(("127.0.0.1", small_server.port), DEADLINE_S) as connection:
        connection.sendall(head_of(protocol, len(body) - 1) + body + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 4")
    assert b"HTTP/1.1 2" not in received


def head_of(protocol: Protocol, length: int) -> bytes:
    return (
        f"POST {protocol.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()
