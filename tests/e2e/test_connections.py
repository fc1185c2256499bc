"""Connections that send no request, send too much, or do not read their answer are closed."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

HEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def strict_server(launch: Callable[..., Any]) -> Any:
    """All limits so low that a test reaches them."""
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


def num_aborted(server: Any) -> float:
    return float(server.metric("distilgpt2_sequences_total", finish_reason="abort"))


def read_to_the_end(connection: socket.socket) -> bytes:
    """Empty if the connection was cut."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        return b""
    return b"".join(pieces)


def read_an_answer(connection: socket.socket) -> bytes:
    """One whole answer, on a connection that stays open."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(re.search(rb"content-length: (\d+)", head.lower())[1]):  # type: ignore[index]  # all have one
            return answer
        piece = connection.recv(65536)
        assert piece, "the connection ended within an answer"
        answer += piece


@pytest.mark.parametrize("beginning", [b"", b"GET /li", HEAD, b"\r\n"])
def test_a_missing_head_closes_the_connection(strict_server: Any, beginning: bytes) -> None:
    with connected(strict_server) as connection:
        connection.sendall(beginning)
        assert read_to_the_end(connection) == b""


def test_a_slow_head_closes_the_connection(strict_server: Any) -> None:
    """Its time limit counts from its first byte, not from its last."""
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


def test_after_an_answer_the_next_head_has_a_time_limit_too(strict_server: Any) -> None:
    with connected(strict_server) as connection:
        connection.sendall(HEAD + b"\r\n" + b"GET /li")
        assert read_to_the_end(connection).endswith(b'{"status":"ok"}')


def test_a_missing_body_is_408(strict_server: Any) -> None:
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


def test_bytes_that_are_not_http_are_400_in_the_usual_shape(strict_server: Any) -> None:
    with connected(strict_server) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_too_many_idle_connections_make_room_for_the_newest(strict_server: Any) -> None:
    """A probe always gets through; the oldest connections are closed first."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(strict_server)) for _ in range(40)]
        with connected(strict_server) as probe:
            probe.sendall(HEAD + b"connection: close\r\n\r\n")
            assert read_to_the_end(probe).startswith(b"HTTP/1.1 200")
        assert read_to_the_end(connections[0]) == b""


def test_a_client_that_does_not_read_is_cut_and_its_work_ends(
    strict_server: Any, wait_until: Callable[..., Any]
) -> None:
    """Beyond the sockets' own buffers: eight answers of 16 000 tokens each, with log-probabilities."""
    before = num_aborted(strict_server)
    asked = {"prompt": "x", "max_tokens": 16000, "ignore_eos": True, "stream": True, "n": 8, "logprobs": 5}
    body = json.dumps(asked).encode()
    with connected(strict_server) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: "did not read for 0.5 s" in strict_server.log, "it is cut")
        wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 0, "nothing runs any more")
    wait_until(lambda: num_aborted(strict_server) == before + 8, "all are counted")
    assert strict_server.metric("distilgpt2_kv_cache_usage_ratio") == 0


def test_pipelined_requests_are_not_served(strict_server: Any) -> None:
    """One answer, then the connection closes, and the client may send the rest again."""
    with connected(strict_server) as connection:
        with suppress(ConnectionError):  # the server may close before it has read everything
            connection.sendall((HEAD + b"\r\n") * 5000)
        answers = read_to_the_end(connection)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 200")


def test_a_short_body_after_its_refusal_leaves_the_connection_open(server: Any) -> None:
    """The client has sent all of it, and was not told that the connection closes."""
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n"
    with connected(server) as connection:
        for _ in range(2):
            connection.sendall(head)
            assert read_an_answer(connection).startswith(b"HTTP/1.1 415 ")
            connection.sendall(b"once")
        connection.sendall(HEAD + b"\r\n")
        assert read_an_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_missing_short_body_has_the_time_limit_of_a_head(strict_server: Any) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n"
    with connected(strict_server) as connection:
        connection.sendall(head)
        assert read_an_answer(connection).startswith(b"HTTP/1.1 415 ")
        assert read_to_the_end(connection) == b""


def test_a_hang_up_is_noticed_behind_a_second_request(strict_server: Any, wait_until: Callable[..., Any]) -> None:
    asked = json.dumps({"prompt": "x", "max_tokens": 16000, "ignore_eos": True}).encode()
    before = num_aborted(strict_server)
    with connected(strict_server) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(asked) + asked
        )
        wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 1, "it runs")
        connection.sendall(HEAD + b"\r\n")
    wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 0, "it has ended")
    wait_until(lambda: num_aborted(strict_server) == before + 1, "all are counted")


@pytest.mark.parametrize("trailer", [b"x: y\r\n", b"x: " + b"y" * 60_000])
def test_a_trailer_without_an_end_ends_the_connection(strict_server: Any, trailer: bytes) -> None:
    """Many lines or a single one: memory for headers is bounded in trailers too."""
    with connected(strict_server) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
            for _ in range(2000):
                connection.sendall(trailer)
        assert read_to_the_end(connection) == b""


def test_an_answer_before_the_whole_body_is_the_only_one(strict_server: Any) -> None:
    """The rest of the body is not a request: there is no second answer, and the first one arrives."""
    with connected(strict_server) as connection:
        connection.sendall(b"POST /nope/x HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n")
        first = connection.recv(65536)
        with suppress(ConnectionError):
            connection.sendall(b"a" * 60000)
        rest = read_to_the_end(connection)
    assert first.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
    assert b"HTTP/1.1" not in rest


def test_connections_in_their_bodies_leave_room_for_a_probe(strict_server: Any) -> None:
    """Even if no other connection is idle."""
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(strict_server)).sendall(head)
        with connected(strict_server) as probe:
            probe.sendall(HEAD + b"connection: close\r\n\r\n")
            assert read_to_the_end(probe).startswith(b"HTTP/1.1 200")
