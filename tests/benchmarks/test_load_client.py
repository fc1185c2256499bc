"""The measuring client: its counts must not depend on how the bytes arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from benchmarks.load_client import Client, ServerAnsweredError, run_load
from benchmarks.workload import Measurements, Workload

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = (
    b'data: {"choices":[{"text":"once"}],"usage":null}\n\n',
    b'data: {"choices":[{"text":" upon"}],"usage":null}\n\ndata: {"choices":[{"text":" a"}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}\n\ndata: [DONE]\n\n',
)
ANSWER = HEAD + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"


class FakeTransport:
    """Records the written bytes."""

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
    client.connection_made(transport)  # type: ignore[arg-type]  # has only the methods that the client uses
    for piece in pieces:
        client.data_received(piece)
    return measurements, transport, ended


def test_tokens_are_counted_wherever_the_bytes_are_cut() -> None:
    """Two reads, split at every possible byte, and one byte at a time."""

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
    """The client sends it when the last answer has ended, and closes the connection after the last request."""

    async def two_requests() -> None:
        measurements, transport, ended = await answer([ANSWER], num_requests=2)
        assert len(transport.written) == 2
        assert not ended.done()
        assert not transport.is_closed
        assert measurements.num_requests == 1

    asyncio.run(two_requests())


def test_a_piece_without_text_is_no_token() -> None:
    """Some servers send the finish reason in a separate event."""

    async def with_an_empty_piece() -> None:
        empty = b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n'
        at = ANSWER.rindex(b"%x\r\n" % len(EVENTS[-1]))
        pieces = [ANSWER[:at], b"%x\r\n%s\r\n" % (len(empty), empty), ANSWER[at:]]
        seen, _, ended = await answer(pieces)
        assert ended.done()
        assert (len(seen.ttfts_s), seen.itls_s) == (1, [])

    asyncio.run(with_an_empty_piece())


@pytest.mark.parametrize("rate", [None, 400.0], ids=["closed", "open"])
def test_each_request_may_have_a_connection_of_its_own(rate: float | None) -> None:
    """For servers that close connections after a stream, although their headers say otherwise."""
    workload = Workload(num_clients=3, num_requests=8, rate=rate, num_new_tokens=3, vocab_size=9)
    num_connections = 0

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()

    async def load() -> Measurements:
        async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as server:
            seen = await run_load(server.sockets[0].getsockname()[1], workload, is_kept=False)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
        return seen

    assert asyncio.run(load()).num_requests == num_connections == 8


@pytest.mark.parametrize(("num_connections", "max_idle_s"), [(1, 2.0), (3, 2.0), (3, 0.0)])
def test_an_open_loop_sends_all_that_arrives_over_the_connections_that_it_may_have(
    num_connections: int, max_idle_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not use connections that were idle for long, because the server may be about to close them."""
    monkeypatch.setattr("benchmarks.load_client.MAX_IDLE_S", max_idle_s)
    workload = Workload(num_clients=num_connections, num_requests=20, rate=400.0, num_new_tokens=3, vocab_size=9)
    num_served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = len(num_served)
        num_served.append(0)
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:  # the client has disconnected
                break
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
            writer.write(ANSWER)
            await writer.drain()
            num_served[connection] += 1
        writer.close()
        await writer.wait_closed()

    async def open_loop() -> Measurements:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            seen = await run_load(server.sockets[0].getsockname()[1], workload)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
        return seen

    seen = asyncio.run(open_loop())
    assert (seen.num_requests, seen.num_tokens) == (20, 60)
    assert len(seen.ttfts_s) == 20
    assert sum(num_served) == 20
    if max_idle_s:
        assert len(num_served) <= num_connections
    else:
        assert len(num_served) > num_connections
    assert seen.elapsed_s >= workload.arrivals_s()[-1]


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
    """A benchmark that counts errors as tokens would look fast."""

    async def refused() -> None:
        _, transport, ended = await answer([refusal])
        assert transport.is_closed
        with pytest.raises(ServerAnsweredError):
            ended.result()

    asyncio.run(refused())
