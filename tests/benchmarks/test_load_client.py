"""The client that measures: what it counts must not depend on how the bytes arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from benchmarks.load_client import Client, Measurements, ServerAnsweredError

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = (
    b'data: {"choices":[{"text":"once"}],"usage":null}\n\n',
    b'data: {"choices":[{"text":" upon"}],"usage":null}\n\ndata: {"choices":[{"text":" a"}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}\n\ndata: [DONE]\n\n',
)
ANSWER = HEAD + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    abort = close


async def answer(pieces: list[bytes], *, num_requests: int = 1) -> tuple[Measurements, FakeTransport, Any]:
    measurements, transport = Measurements(), FakeTransport()
    ended = asyncio.get_running_loop().create_future()
    client = Client([b"request"] * num_requests, measurements, ended)
    client.connection_made(transport)  # type: ignore[arg-type]  # as much of one as it uses
    for piece in pieces:
        client.data_received(piece)
    return measurements, transport, ended


def test_tokens_are_counted_wherever_the_bytes_are_cut() -> None:
    """Two reads with every possible border, and one byte at a time."""

    async def all_cuts() -> None:
        for pieces in ([ANSWER[:cut], ANSWER[cut:]] for cut in range(1, len(ANSWER))):
            measurements, transport, ended = await answer(pieces)
            assert ended.done()
            assert transport.is_closed
            assert (measurements.num_requests, measurements.num_tokens) == (1, 3)
            assert len(measurements.ttfts_s) == 1
        measurements, _, _ = await answer([ANSWER[at : at + 1] for at in range(len(ANSWER))])
        assert measurements.num_tokens == 3
        assert len(measurements.itls_s) == 1  # two chunks with text, each read on its own

    asyncio.run(all_cuts())


def test_next_request_follows_on_the_same_connection() -> None:
    """It is sent when the last answer has ended, not before; the connection is closed after the last."""

    async def two_requests() -> None:
        measurements, transport, ended = await answer([ANSWER], num_requests=2)
        assert len(transport.written) == 2
        assert not ended.done()
        assert not transport.is_closed
        assert measurements.num_requests == 1

    asyncio.run(two_requests())


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"0\r\n\r\n",
    ],
    ids=["a status", "no stream", "no usage"],
)
def test_anything_but_a_whole_stream_fails_the_measurement(refusal: bytes) -> None:
    """A benchmark that counted errors as tokens would be fast."""

    async def refused() -> None:
        _, transport, ended = await answer([refusal])
        assert transport.is_closed
        with pytest.raises(ServerAnsweredError):
            ended.result()

    asyncio.run(refused())
