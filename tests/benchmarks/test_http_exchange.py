"""The client of the reliability programs: it must never count a broken answer as complete."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.reliability.http_exchange import ERROR, FINISH, Connection, build_get, try_once

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'
LAST_PIECE = b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
FAILED = b'data: {"error":{"message":"no"}}\n\n'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def chunked(*events: bytes, is_ended: bool = True) -> bytes:
    return STREAM + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n" * is_ended


async def ending_of(answer: bytes) -> str:
    """The ending of a request to a server that sends `answer` and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        return await try_once(server.sockets[0].getsockname()[1], build_get("/"), timeout_s=5.0)


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (WHOLE, "200"),
        (WHOLE[:-1], "cut in mid-answer"),
        (WHOLE[:20], "closed without an answer"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "503"),
        (chunked(PIECE, LAST_PIECE, DONE), FINISH),
        (chunked(PIECE, LAST_PIECE, DONE, is_ended=False), "cut in mid-answer"),
        (chunked(PIECE, FAILED), ERROR),
        (chunked(PIECE), "ended without a reason"),
        (chunked(PIECE, DONE), "ended without a reason"),
    ],
)
def test_every_ending_has_its_name(answer: bytes, ending: str) -> None:
    assert asyncio.run(ending_of(answer)) == ending


def test_a_port_without_a_server_refuses() -> None:
    async def find_refusal() -> str:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        return await try_once(port, build_get("/"), timeout_s=5.0)

    assert asyncio.run(find_refusal()) == "refused"


def test_a_connection_that_the_server_closed_has_ended() -> None:
    async def is_ended_after_answer() -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(WHOLE)
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            with await Connection.open(server.sockets[0].getsockname()[1]) as connection:
                assert (await connection.ask(build_get("/"))).ending == "200"
                async with asyncio.timeout(5.0):
                    while not connection.is_ended:  # noqa: ASYNC110 - a state of asyncio's own reader
                        await asyncio.sleep(0)
                return connection.is_ended

    assert asyncio.run(is_ended_after_answer())
