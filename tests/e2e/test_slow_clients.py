"""Clients that send or read too slowly, or are too many, are cut off, and others are served."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvloop
from benchmarks.reliability.http_exchange import FINISH, Connection, ask_once, build_completion, build_get

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BEGINNINGS = {"head": HEAD, "body": HEAD + b"content-length: 100000\r\n\r\n"}
NUM_SLOW = 50


class SlowSender:
    """Owns a connection that sends one byte per call."""

    def __init__(self, port: int, beginning: bytes) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.sendall(beginning)
        self._connection.setblocking(False)

    def is_cut_off(self) -> bool:
        """Send a byte. True once the server has closed the connection."""
        try:
            self._connection.send(b"x")
            while self._connection.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def strict_server(launch: Callable[..., Any]) -> Any:
    """A second's time limit for heads, bodies and clients that do not read."""
    server = launch(header_timeout_s=1, body_timeout_s=1, write_timeout_s=1, max_num_sequences=4)
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_slow_sender_is_cut_off_while_others_are_served(
    strict_server: Any, wait_until: Callable[..., Any], part: str
) -> None:
    with ExitStack() as stack:
        senders = []
        for _ in range(NUM_SLOW):
            senders.append(SlowSender(strict_server.port, BEGINNINGS[part]))
            stack.callback(senders[-1].close)
        assert strict_server.complete(prompt="once", max_tokens=5).status_code == 200
        wait_until(lambda: sum(sender.is_cut_off() for sender in senders) == NUM_SLOW, "every slow sender is cut off")


def test_a_client_that_does_not_read_its_stream_is_aborted(strict_server: Any, wait_until: Callable[..., Any]) -> None:
    """Once the buffers are full and the write timeout is over. All its blocks are freed."""
    request = build_completion(max_tokens=15_000, n=4, logprobs=20, stream=True)
    reader = socket.socket()
    with reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", strict_server.port))
        reader.sendall(request)
        wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 4, "its sequences run")
        wait_until(lambda: strict_server.metric("distilgpt2_running_sequences") == 0, "they are aborted")
    assert strict_server.metric("distilgpt2_kv_cache_usage_ratio") == 0
    assert strict_server.metric("distilgpt2_sequences_total", finish_reason="abort") >= 4


def test_one_clients_many_requests_do_not_delay_another_clients_first(strict_server: Any) -> None:
    """With 40 requests of one address queued, a request of another address runs next."""

    async def count_crowd_served_before() -> int:
        request = build_completion(max_tokens=400)
        crowd = [asyncio.create_task(ask_once(strict_server.port, request, source="127.0.0.2")) for _ in range(40)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)  # all have been sent long before
        answer = await ask_once(strict_server.port, build_completion(max_tokens=1, stream=True), source="127.0.0.3")
        assert answer.ending == FINISH
        num_served = sum(task.done() for task in crowd)
        assert {(await task).ending for task in crowd} == {"200"}
        return num_served

    assert uvloop.run(count_crowd_served_before()) <= 20


@contextmanager
def soft_fd_limit(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_soft_limit_of_open_files_is_raised(launch: Callable[..., Any]) -> None:
    """Shells and service managers set a soft limit of 1024, with a much higher hard limit."""
    with soft_fd_limit(128):
        server = launch("serve")
    server.wait_listening()
    server.wait_ready()

    async def probe_among_many() -> int:
        with ExitStack() as stack:
            for _ in range(200):
                connection = stack.enter_context(await Connection.open(server.port))
                await connection.ask(build_get("/livez"))
            return (await ask_once(server.port, build_get("/livez"))).status

    assert uvloop.run(probe_among_many()) == 200
