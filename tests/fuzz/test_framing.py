"""Unusual request framing on raw sockets: one answer per request, none for a request inside a body."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import os
import random
import socket
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import pytest
from tests.e2e.conftest import Launcher, Server
from typing_extensions import Buffer

logger = logging.getLogger(__name__)

NUM_CONNECTIONS = int(os.environ.get("FUZZ_CONNECTIONS", "4000"))
"""Connections to each server."""
WAIT_S = 10.0
PATIENCE_S = 0.5
"""The servers' time limit for the rest of a request."""
INNER = b"GET /livez?from=a-body HTTP/1.1\r\nHost: inner\r\n\r\n"
"""The content of every body: a server that misreads a length would take it for the next request."""
HARMLESS_HEADERS = (
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Upgrade: TLS/1.0\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b"TE: trailers\r\nConnection: TE\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\nVia: 1.1 proxy\r\n",
    b"Content-Encoding: identity\r\n",
    b"Trailer: X-Sum\r\n",
)
BROKEN_FRAMINGS = (
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n",
    b"Content-Length: %d\r\nContent-Length: 0\r\n",
    b"Content-Length: +%d\r\n",
    b"Content-Length: -%d\r\n",
    b"Content-Length: %d, 0\r\n",
    b"Content-Length : %d\r\n",
    b"Content-Length: 0x%d\r\n",
    b"Transfer-Encoding: gzip, chunked\r\nX-Length: %d\r\n",
    b"Transfer-Encoding: chunked, identity\r\nX-Length: %d\r\n",
    b"Transfer-Encoding: xchunked\r\nX-Length: %d\r\n",
    b"Transfer-Encoding:\x0bchunked\r\nX-Length: %d\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nX-Length: %d\r\n",
    b"Foo: bar\rTransfer-Encoding: chunked\r\nX-Length: %d\r\n",
    b"Content-Length: %d\nTransfer-Encoding: chunked\r\n",
    b"Host: another\r\nContent-Length: %d\r\n",
)
BROKEN_LINES = (
    b"POST /tokenize HTTP/2.0",
    b"POST /tokenize HTTP/1.10",
    b"POST /tokenize RTSP/1.0",
    b"POST /tokenize",
    b"POST  /tokenize HTTP/1.1",
    b"POST * HTTP/1.1",
    b"FOO /tokenize HTTP/1.1",
    b"CONNECT localhost:80 HTTP/1.1",
    b"POST http://[::1 HTTP/1.1",
    b"PRI * HTTP/2.0",
)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request in bytes, with its expected reading."""

    content: bytes
    is_sound: bool
    """Whether RFC 9112 allows exactly one reading of the request."""


LAST = RawRequest(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", is_sound=True)


def make_request(rng: random.Random) -> RawRequest:
    """A request to a probe, or one with another request in its body, with valid or invalid framing."""
    kind = rng.randrange(10)
    head = b"Host: localhost\r\n" + b"".join(rng.sample(HARMLESS_HEADERS, rng.choice((0, 0, 1, 2))))
    body = INNER * rng.randrange(1, 4)
    if kind < 3:
        return RawRequest(b"GET /livez HTTP/1.1\r\n" + head + b"\r\n", is_sound=True)
    if kind < 5:
        length = b"Content-Length: %d\r\n" % len(body)
        return RawRequest(b"POST /tokenize HTTP/1.1\r\n" + head + length + b"\r\n" + body, is_sound=True)
    if kind < 7:
        coding = b"Transfer-Encoding: chunked\r\n\r\n"
        return RawRequest(b"POST /tokenize HTTP/1.1\r\n" + head + coding + chunk(rng, body), is_sound=True)
    if kind < 9:
        framing = rng.choice(BROKEN_FRAMINGS) % len(body)
        return RawRequest(b"POST /tokenize HTTP/1.1\r\n" + head + framing + b"\r\n" + body, is_sound=False)
    length = b"Content-Length: %d\r\n" % len(body)
    return RawRequest(rng.choice(BROKEN_LINES) + b"\r\n" + head + length + b"\r\n" + body, is_sound=False)


def chunk(rng: random.Random, body: bytes) -> bytes:
    """The body in chunks of random lengths, sometimes with an extension and a trailer."""
    pieces = []
    while body:
        size = rng.randrange(1, len(body) + 1)
        extension = rng.choice((b"", b"", b";a=b", b';a="b c"'))
        pieces.append(b"%x%b\r\n%b\r\n" % (size, extension, body[:size]))
        body = body[size:]
    return b"".join(pieces) + b"0\r\n" + rng.choice((b"", b"X-Sum: 1\r\n")) + b"\r\n"


class _Answers:
    """A socket for `http.client` with one buffer for all answers, because they may arrive in one segment."""

    def __init__(self, buffer: io.BufferedReader) -> None:
        self._buffer = buffer

    def makefile(self, _mode: str) -> _Shared:
        return _Shared(self._buffer)

    def read_status(self) -> int | None:
        """Read the next answer; return its status, or None if the connection has ended."""
        answer = http.client.HTTPResponse(self)  # type: ignore[arg-type]  # it only calls the socket's `makefile`
        try:
            answer.begin()
            answer.read()
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            return None
        return answer.status


class _Shared(io.BufferedIOBase):
    """A file that stays open when its reader closes it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Buffer, /) -> int:
        return self._file.readinto(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._file.readline(size)

    def peek(self, size: int = 0) -> bytes:
        return self._file.peek(size)


def exchange(rng: random.Random, port: int, requests: list[RawRequest]) -> list[int]:
    """The status of each answer on one connection, until the server or the last request ends it.

    Each request waits for the previous answer, or all are sent at once; both in random segments.
    """
    is_pipelined = rng.random() < 0.3
    statuses: list[int] = []
    with (
        closing(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)) as connection,
        connection.makefile("rb") as buffer,
    ):
        answers = _Answers(buffer)
        contents = [request.content for request in requests]
        with contextlib.suppress(ConnectionError):  # closed by a refusal
            for content in [b"".join(contents)] if is_pipelined else contents:
                for segment in cut(rng, content):
                    connection.sendall(segment)
                if not is_pipelined and (status := answers.read_status()):
                    statuses.append(status)
        while status := answers.read_status():
            statuses.append(status)
    return statuses


def cut(rng: random.Random, content: bytes) -> list[bytes]:
    """The bytes in one to five segments."""
    places = sorted(rng.randrange(len(content) + 1) for _ in range(rng.randrange(5)))
    return [content[start:end] for start, end in zip([0, *places], [*places, len(content)], strict=True)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["serve", "uvicorn", "uvicorn-h11"])
def test_a_body_is_never_taken_for_a_request(launch: Launcher, kind: str) -> None:
    server: Server = launch(kind, header_timeout_s=PATIENCE_S, body_timeout_s=PATIENCE_S)
    server.wait_listening()
    server.wait_ready()
    counts: Counter[int] = Counter()

    for seed in range(NUM_CONNECTIONS):
        rng = random.Random(seed)
        requests = [*(make_request(rng) for _ in range(rng.randrange(1, 4))), LAST]
        statuses = exchange(rng, server.port, requests)
        counts.update(statuses)
        details = f"seed {seed}: {statuses} for {[request.content for request in requests]}"
        assert len(statuses) <= len(requests), details
        assert all(status < 500 or status in (501, 505) for status in statuses), details
        if requests[0].is_sound:
            assert statuses, details
    logger.info("%s: %d connections, answers by status: %s", kind, NUM_CONNECTIONS, dict(sorted(counts.items())))

    assert server.process.poll() is None, server.log
    assert server.get("/livez").status_code == 200
    # Uvicorn's own protocols answer an incomplete body twice, and log that the second answer failed.
    assert kind != "serve" or "Traceback" not in server.log
    assert "from=a-body" not in server.log
