"""Request framing on real sockets, under each server that can run the application."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from distilgpt2_api.server.http.connections.connections import limited_protocol
from distilgpt2_api.server.http.limits import ConnectionLimits
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS

LIMITS = ConnectionLimits(header_timeout_s=20, max_header_bytes=4096, write_timeout_s=20, max_connections=64)
SERVERS: dict[str, Any] = {
    "ours": limited_protocol(LIMITS, OPENAI_ERRORS),
    "httptools": HttpToolsProtocol,
    "h11": H11Protocol,
}

BODY = b'{"prompt":"ab","max_tokens":3}'
POST = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
POST_10 = POST.replace(b"1.1", b"1.0")
PROBE = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-request-id: probe\r\n\r\n"
UPGRADE = POST + b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"


def sized(head: bytes, body: bytes) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
KEPT, ENDED = True, False
TOO_LARGE = 431
"""Only our worker answers so: docs/operations.md."""


class Talk:
    """One connection: its responses, and whether it accepts another request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.is_broken = False

    @property
    def statuses(self) -> list[int]:
        return [int(head[9:12]) for head in self.heads]

    async def send(self, segments: Sequence[bytes]) -> None:
        for segment in segments:
            self._writer.write(segment)
            for _ in range(5):  # so that the server can receive it alone
                await asyncio.sleep(0)

    async def read_answer(self) -> bool:
        """False if the connection has ended."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await (self._reader.readexactly(int(length[1])) if length else self._reader.read())
        except asyncio.IncompleteReadError:
            return False
        except ConnectionError:
            self.is_broken = True
            return False
        self.heads.append(head)
        self.bodies.append(body)
        return True

    async def is_kept(self) -> bool:
        """Whether another request is answered. Its response is removed from the lists."""
        with suppress(ConnectionError):
            self._writer.write(PROBE)
        while await self.read_answer():
            if b"x-request-id: probe" in self.heads[-1]:
                del self.heads[-1], self.bodies[-1]
                return True
        return False


def talk(client: Any, server: str, segments: Sequence[bytes]) -> tuple[Talk, bool]:
    config = Config(client.scene.app, lifespan="off", ws="none", log_config=None)
    config.load()

    async def play() -> tuple[Talk, bool]:
        state = ServerState()
        listener = await asyncio.get_running_loop().create_server(
            lambda: SERVERS[server](config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        async with listener, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            conversation = Talk(reader, writer)
            try:
                await conversation.send(segments)
                await conversation.read_answer()
                return conversation, await conversation.is_kept()
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
                while state.connections or state.tasks:  # noqa: ASYNC110 - Uvicorn has no event for it
                    await asyncio.sleep(0)

    result: tuple[Talk, bool] = client.runner.run(play())
    return result


@pytest.mark.reported("Java's HttpClient, and curl --http2, ask for h2c with every request")
@pytest.mark.parametrize(
    "segments",
    [
        [sized(UPGRADE, BODY) + BODY],
        [sized(UPGRADE, BODY), BODY],
        [UPGRADE + CHUNKED + chunked(BODY)],
        [UPGRADE + CHUNKED, chunked(BODY)],
        [sized(POST + b"connection: upgrade\r\nupgrade: websocket\r\n", BODY) + BODY],
    ],
)
@pytest.mark.parametrize("server", ["ours", "h11"])
def test_a_request_with_upgrade_is_answered_in_http_1_1(client: Any, server: str, segments: list[bytes]) -> None:
    conversation, is_kept = talk(client, server, segments)
    assert conversation.statuses == [200]
    assert json.loads(conversation.bodies[0])["usage"]["completion_tokens"] == 3
    assert is_kept is (server == "ours")
    assert (b"connection: close" in conversation.heads[0]) is not is_kept


@pytest.mark.reported("Java's HttpClient under Uvicorn's own httptools implementation")
def test_a_server_that_drops_the_body_refuses_and_closes_the_connection(client: Any) -> None:
    conversation, is_kept = talk(client, "httptools", [sized(UPGRADE, BODY), BODY])
    assert conversation.statuses == [400]
    assert "uvicorn --http h11" in json.loads(conversation.bodies[0])["error"]["message"]
    assert b"connection: close" in conversation.heads[0]
    assert not is_kept


@pytest.mark.reported("an attack with a request as the body of another one that asks for h2c")
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("framed", [lambda body: [sized(UPGRADE, body), body], lambda body: [UPGRADE + CHUNKED, body]])
def test_a_request_inside_a_body_is_not_served(client: Any, server: str, framed: Any) -> None:
    """With either framing. A request after the body is answered once, or not at all."""
    hidden = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-request-id: hidden\r\n\r\n"
    conversation, is_kept = talk(client, server, framed(hidden))
    assert conversation.statuses == [400]
    assert b"x-request-id: hidden" not in conversation.heads[0]
    if not is_kept:
        assert b"connection: close" in conversation.heads[0]


REFUSED = [
    # the host
    (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nhost: a b/c@d\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nhost: a:b\r\n\r\n", 400),
    # the request line
    (b"GET /livez HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    (b"GET /livez HTTP/1.2\r\nhost: a\r\n\r\n", 505),
    (b"GET /livez RTSP/1.0\r\nhost: a\r\n\r\n", 505),
    (b"GET /livez\r\n\r\n", 505),
    (b"GET /livez\r\nhost: a\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"FOO /livez HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    (b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 501),
    (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"\x16\x03\x01 this is TLS\r\n\r\n", 400),
    # the size
    (b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 10_000 + b"\r\n", TOO_LARGE),
    (b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 690 + b"\r\n", TOO_LARGE),
    (b"GET /livez HTTP/1.1\r\nhost: a\r\nb: " + b"c" * 5000 + b"\r\n\r\n", TOO_LARGE),
    # the body's framing
    (POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunked(BODY), 501),
    (POST + b"transfer-encoding: xchunked\r\n\r\n" + chunked(BODY), 400),
    (POST + b"transfer-encoding: chunked\r\n" + CHUNKED + chunked(BODY), 400),
    (POST + b"content-length: 5\r\n" + CHUNKED + chunked(BODY), 400),
    (sized(POST + CHUNKED[:-2], BODY) + chunked(BODY), 400),
    (POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\n" + BODY, 400),
    (POST + b"content-length: 5, 5\r\n\r\n" + BODY, 400),
    (POST + b"content-length: +5\r\n\r\n" + BODY, 400),
    (POST + b"content-length : 5\r\n\r\n" + BODY, 400),
    (POST_10 + CHUNKED + chunked(BODY), 400),
    (UPGRADE + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunked(BODY), 501),
    (UPGRADE + b"content-length: 5\r\n" + CHUNKED + chunked(BODY), 400),
]


@pytest.mark.reported("an attack with requests that RFC 9112 forbids, each with a second request behind it")
@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
def test_an_invalid_request_is_refused_and_nothing_after_it_is_served(
    client: Any, request_bytes: bytes, status: int
) -> None:
    conversation, is_kept = talk(client, "ours", [request_bytes + PROBE])
    assert conversation.statuses == [status]
    assert json.loads(conversation.bodies[0])["error"]["type"] == "invalid_request_error"
    assert conversation.heads[0].count(b"connection: close") == 1
    assert not is_kept
    assert client.scene.runner.plans == [], "no text was generated"


@pytest.mark.reported("the same attack under Uvicorn's own protocols")
@pytest.mark.parametrize("server", ["httptools", "h11"])
@pytest.mark.parametrize("request_bytes", [row for row, status in REFUSED if status != TOO_LARGE])
def test_other_servers_do_not_serve_invalid_requests_either(client: Any, server: str, request_bytes: bytes) -> None:
    """Except that httptools accepts RTSP, which the application can't see, and h11 accepts any method, which gets 405.

    h11 merges equal lengths, as RFC 9112 allows; the rest of the body is then refused as a second request.
    """
    conversation, is_kept = talk(client, server, [request_bytes])
    if b"RTSP" in request_bytes and server == "httptools":
        assert (conversation.statuses, is_kept) == ([200], ENDED)
    elif b"FOO" in request_bytes and server == "h11":
        assert (conversation.statuses, is_kept) == ([405], KEPT)
    else:
        assert conversation.statuses
        assert set(conversation.statuses) <= {400, 501, 505}
        assert not is_kept
    assert client.scene.runner.plans == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /livez HTTP/1.1\r\nhost:\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: [::1]:8000\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: my_service.default.svc:8000\r\n\r\n",
        b"\r\nGET http://x/livez HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nte: trailers\r\nexpect: something\r\n\r\n",
        sized(POST, BODY) + BODY,
        POST + b"transfer-encoding: Chunked\r\n\r\n" + chunked(BODY),
        POST + b"connection: upgrade\r\n" + CHUNKED + chunked(BODY)[:-2] + b"upgrade: h2c\r\n\r\n",
    ],
)
def test_a_valid_request_is_answered_and_keeps_the_connection(client: Any, request_bytes: bytes) -> None:
    conversation, is_kept = talk(client, "ours", [request_bytes])
    assert conversation.statuses == [200]
    assert is_kept


def test_the_last_response_announces_that_a_pipelined_request_is_not_served(client: Any) -> None:
    """RFC 9112, section 9.6: the last response has `Connection: close`."""
    conversation, is_kept = talk(client, "ours", [sized(POST, BODY) + BODY + PROBE])
    assert (conversation.statuses, is_kept) == ([200], ENDED)
    assert conversation.heads[0].count(b"connection: close") == 1


@pytest.mark.parametrize(
    ("head", "status"), [(POST, 413), (POST.replace(b"host: x\r\n", b""), 400), (POST.replace(b"1.1", b"2.0"), 505)]
)
def test_a_client_that_keeps_sending_after_a_refusal_still_gets_it(client: Any, head: bytes, status: int) -> None:
    """If the connection closed at once, the arriving data would reset it and destroy the response."""
    conversation, is_kept = talk(client, "ours", [sized(head, b"x" * 5_000_000), *[b"x" * 100_000] * 50])
    assert (conversation.statuses, is_kept) == ([status], ENDED)
    assert conversation.heads[0].count(b"connection: close") == 1
    assert not conversation.is_broken


def test_a_request_may_arrive_byte_by_byte(client: Any) -> None:
    whole = sized(UPGRADE, BODY) + BODY
    conversation, is_kept = talk(client, "ours", [whole[index : index + 1] for index in range(len(whole))])
    assert conversation.statuses == [200]
    assert is_kept


@pytest.mark.reported("an attack with an endless chunk extension, and with one on every chunk")
@pytest.mark.parametrize("chunks", [b"1;" + b"x" * 20_000, (b"1;" + b"x" * 60 + b"\r\na\r\n") * 1000])
def test_chunk_extensions_are_limited(client: Any, chunks: bytes) -> None:
    conversation, is_kept = talk(client, "ours", [POST + CHUNKED, chunks])
    assert (conversation.statuses, is_kept) == ([], ENDED)


def test_a_body_may_arrive_in_chunks_of_one_byte(client: Any) -> None:
    body = b'{"prompt":"' + b"a" * 2000 + b'","nope":1}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert len(chunks) > LIMITS.max_header_bytes
    conversation, _ = talk(client, "ours", [POST + CHUNKED + chunks])
    assert "nope" in json.loads(conversation.bodies[0])["error"]["message"]


def test_a_trailer_is_no_header(client: Any) -> None:
    """It could impersonate a proxy's header about the client."""
    trailer = chunked(BODY)[:-2] + b"x-request-id: trailer\r\n\r\n"
    conversation, is_kept = talk(client, "ours", [POST + CHUNKED + trailer])
    assert conversation.statuses == [200]
    assert b"x-request-id: trailer" not in conversation.heads[0]
    assert is_kept


def test_invalid_chunks_are_refused_and_abort_the_request(client: Any) -> None:
    conversation, is_kept = talk(client, "ours", [POST + CHUNKED, b"zz\r\n" + PROBE])
    assert (conversation.statuses, is_kept) == ([400], ENDED)
    assert client.scene.log.calls[-1].kwargs["status"] == 499


@pytest.mark.reported("curl -0 -N with a stream")
@pytest.mark.parametrize("server", ["ours", "h11"])
def test_a_stream_to_http_1_0_ends_with_the_connection(client: Any, server: str) -> None:
    body = BODY[:-1] + b',"stream":true}'
    conversation, is_kept = talk(client, server, [sized(POST_10 + b"connection: keep-alive\r\n", body) + body])
    assert conversation.statuses == [200]
    assert b"transfer-encoding" not in conversation.heads[0].lower()
    assert b"connection: close" in conversation.heads[0].lower()
    assert conversation.bodies[0].startswith(b"data: {")
    assert conversation.bodies[0].endswith(b"\n\ndata: [DONE]\n\n")
    assert not is_kept


def test_a_json_response_to_http_1_0_has_a_length(client: Any) -> None:
    conversation, is_kept = talk(client, "ours", [sized(POST_10 + b"expect: 100-continue\r\n", BODY) + BODY])
    assert conversation.statuses == [200], "and no 100, which HTTP/1.0 lacks"
    assert json.loads(conversation.bodies[0])["usage"]["completion_tokens"] == 3
    assert not is_kept
