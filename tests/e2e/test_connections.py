"""Connections that bring no request, bring too much of one, or don't take their answer: none of them lasts."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

HEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def strict_server(launch: Callable[..., Any]) -> Any:
    """All bounds so low that a test meets them."""
    server = launch(
        "serve",
        header_timeout_s=0.5,
        body_timeout_s=0.5,
        write_timeout_s=0.5,
        max_header_bytes=2048,
        max_connections=16,
    )
    server.wait_listening()
    server.wait_ready()
    return server


@contextmanager
def connected(server: Any) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    """Empty where the connection was cut."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        return b""
    return b"".join(pieces)


@pytest.mark.parametrize("beginning", [b"", b"GET /li", HEAD, b"\r\n"])
def test_a_head_that_does_not_come_closes_the_connection(strict_server: Any, beginning: bytes) -> None:
    with connected(strict_server) as connection:
        connection.sendall(beginning)
        assert read_to_the_end(connection) == b""


def test_a_head_that_comes_byte_by_byte_closes_the_connection(strict_server: Any) -> None:
    """Its time counts from its first byte, not from its last."""
    with connected(strict_server) as connection:
        connection.settimeout(0.05)
        for _ in range(400):
            try:
                connection.sendall(b"G")
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("the connection is still open after 20 s")


def test_after_an_answer_the_next_head_has_its_time_too(strict_server: Any) -> None:
    with connected(strict_server) as connection:
        connection.sendall(HEAD + b"\r\n" + b"GET /li")
        assert read_to_the_end(connection).endswith(b'{"status":"ok"}')


def test_a_body_that_does_not_come_is_408(strict_server: Any) -> None:
    with connected(strict_server) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"within 0.5 seconds" in answer


@pytest.mark.parametrize(
    "head",
    [HEAD + b"x-large: " + b"a" * 3000 + b"\r\n\r\n", HEAD + b"x-large: " + b"a" * 3000, b"GET /" + b"a" * 3000],
)
def test_a_head_that_is_too_large_is_431(strict_server: Any, head: bytes) -> None:
    """Whole, in the middle of a header, in the middle of the path."""
    with connected(strict_server) as connection:
        connection.sendall(head)
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 431")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


def test_no_http_at_all_is_400_in_the_shape_of_all_errors(strict_server: Any) -> None:
    with connected(strict_server) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_too_many_idle_connections_make_room_for_the_newest(strict_server: Any) -> None:
    """A probe gets through whatever else is open, and the oldest go first."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(strict_server)) for _ in range(40)]
        with connected(strict_server) as probe:
            probe.sendall(HEAD + b"connection: close\r\n\r\n")
            assert read_to_the_end(probe).startswith(b"HTTP/1.1 200")
        assert read_to_the_end(connections[0]) == b""


def test_a_client_that_does_not_read_is_cut_and_its_work_ends(
    strict_server: Any, wait_until: Callable[..., Any]
) -> None:
    """However much the sockets' own buffers take: eight answers of 16 000 tokens each, with log-probabilities."""
    before = strict_server.metric("distilgpt2_sequences_total", finish_reason="abort")
    asked = {"prompt": "x", "max_tokens": 16000, "ignore_eos": True, "stream": True, "n": 8, "logprobs": 5}
    body = json.dumps(asked).encode()
    with connected(strict_server) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: "did not read its answer for 0.5 s" in strict_server.log, "it is cut")
        wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 0, "nothing runs any more")
    assert strict_server.metric("distilgpt2_sequences_total", finish_reason="abort") == before + 8
    assert strict_server.metric("distilgpt2_kv_cache_usage_ratio") == 0
