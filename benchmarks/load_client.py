"""A lean load client: streamed completions over raw sockets. It is a separate process, so that its processor time is
known and separate from the server's.

    python -m benchmarks.load_client PORT --clients 32 --requests 4
    python -m benchmarks.load_client PORT --clients 64 --requests 100 --rate 8 --max-prompt-tokens 512

Each client keeps one connection. Closed loop: it sends its next request when the last one has ended. Open loop, with
`--rate`: requests arrive at random at this rate, and wait for a free connection if all are in use; TTFT counts from the
arrival. With `--reconnect` each request has its own connection, for servers that close them. The client fails on any
answer but a chunked event stream. It counts and times events without parsing their JSON, except the usage in the last
one. Prints one line of JSON; times in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import uvloop
from benchmarks.workload import Measurements, StreamTimes, Workload, deal

HOST = "127.0.0.1"
HEADER_END = b"\r\n\r\n"
PIECE = b'"choices":[{'
"""Part of every event with text, but not of the last two: usage and `[DONE]`."""
NO_TEXT = b'"text":""'
"""Some servers send the finish reason in a separate event without text."""
MAX_IDLE_S = 2.0
"""Idle connections older than this are not used again: servers close them after about five seconds, and a request could
be lost."""
USAGE = b'"usage":{'
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


class ServerAnsweredError(Exception):
    """The server's answer was not 200 with a chunked stream."""


class Client(asyncio.Protocol):
    """One connection: sends a request, reads its stream, sends the next."""

    def __init__(
        self,
        requests: Sequence[bytes],
        measurements: Measurements,
        ended: asyncio.Future[None],
        on_idle: Callable[[Client], None] | None = None,
    ) -> None:
        """After the last request the connection is closed; with `on_idle` it stays open for more."""
        self._requests = iter(requests)
        self._measurements = measurements
        self._ended = ended
        self._on_idle = on_idle
        self._times: StreamTimes | None = None
        """Times of the request in flight."""
        self.has_answered = False
        """The next request's bytes."""
        self._buffer = b""
        self._is_in_body = False
        self._usage = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class has the same methods
        self._send_next()

    def send(self, request: bytes, since_s: float) -> None:
        """Send a request; its TTFT counts from `since_s`."""
        self._is_in_body = False
        self._times = StreamTimes(self._measurements, since_s)
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        try:
            self._read(self._buffer + data if self._buffer else data, now_s)
        except (ServerAnsweredError, ValueError) as error:
            self._transport.abort()
            if not self._ended.done():
                self._ended.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._times is not None and not self._ended.done():
            self._ended.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _send_next(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self.send(request, time.perf_counter())
            return
        self._times = None
        if self._on_idle is not None:
            self._on_idle(self)
        else:
            self._ended.set_result(None)
            self._transport.close()

    def _read(self, data: bytes, now_s: float) -> None:
        position = 0 if self._is_in_body else self._read_head(data)
        has_pieces = False
        while self._is_in_body:  # chunk by chunk
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            size = int(data[position:line_end], 16)
            begin, end = line_end + 2, line_end + 2 + size
            if len(data) < end + 2:
                break
            position = end + 2
            if size == 0:
                if has_pieces:
                    self._mark_pieces(now_s)
                self._end_stream()
                return
            has_pieces = has_pieces or (data.find(PIECE, begin, end) >= 0 > data.find(NO_TEXT, begin, end))
            if data.find(USAGE, begin, end) >= 0:
                self._usage = data[begin:end]
        self._buffer = data[position:]
        if has_pieces:
            self._mark_pieces(now_s)

    def _read_head(self, data: bytes) -> int:
        """Offset of the body; 0 while the header is incomplete."""
        end = data.find(HEADER_END)
        if end < 0:
            return 0
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 200 ") or b"transfer-encoding: chunked" not in head:
            raise ServerAnsweredError(data[:500].decode(errors="replace"))
        self._is_in_body = True
        return end + len(HEADER_END)

    def _mark_pieces(self, now_s: float) -> None:
        if self._times is not None:
            self._times.mark(now_s)

    def _end_stream(self) -> None:
        match = COMPLETION_TOKENS.search(self._usage)
        if match is None:
            raise ServerAnsweredError("a stream ended without usage")
        self._measurements.num_tokens += int(match[1])
        self._measurements.num_requests += 1
        self.has_answered = True
        self._buffer = self._usage = b""
        self._send_next()


class OpenLoop:
    """Owns the connections of an open loop: `dispatch` sends a request on a free connection, or opens another."""

    def __init__(self, workload: Workload, measurements: Measurements, port: int, *, is_kept: bool) -> None:
        """A connection that is not `is_kept` serves one request."""
        self._workload = workload
        self._measurements = measurements
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._port = port
        self._is_kept = is_kept
        self._clients: list[Client] = []
        self._idle: list[tuple[Client, float]] = []
        """Free connections and the time since which they are free, the most recent last."""
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._opening: set[asyncio.Task[object]] = set()
        self._num_open = 0

    async def run(self, requests: Sequence[bytes], begin_s: float) -> None:
        try:
            for request, arrival_s in zip(requests, self._workload.arrivals_s(), strict=True):
                due_s = begin_s + arrival_s
                await asyncio.sleep(due_s - time.perf_counter())
                self._waiting.append((request, due_s))
                self._dispatch()
            await self._ended
        finally:
            for client in self._clients:
                client.close()

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            client, since_s = self._idle.pop()
            if time.perf_counter() - since_s < MAX_IDLE_S:
                client.send(*self._waiting.popleft())
            else:
                client.close()
                self._num_open -= 1
        if len(self._waiting) > len(self._opening) and self._num_open < self._workload.num_clients:
            self._num_open += 1
            task = asyncio.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        client = Client((), self._measurements, self._ended, self._take_back)
        try:
            await asyncio.get_running_loop().create_connection(lambda: client, HOST, self._port)
            self._clients.append(client)
        except OSError as error:
            if not self._ended.done():
                self._ended.set_exception(error)

    def _take_back(self, client: Client) -> None:
        if client.has_answered and not self._is_kept:
            client.close()
            self._num_open -= 1
            self._dispatch()
        elif self._waiting:
            client.send(*self._waiting.popleft())
        else:
            self._idle.append((client, time.perf_counter()))
        if self._measurements.num_requests == self._workload.num_requests and not self._ended.done():
            self._ended.set_result(None)


def build_request(prompt: str | list[int], workload: Workload) -> bytes:
    """Without a seed: each server samples with its fastest generator, and vLLM on a CPU crashes with a seed."""
    body = json.dumps(
        {
            "prompt": prompt,
            "max_tokens": workload.num_new_tokens,
            "temperature": 1.0,
            "top_k": workload.top_k,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run_connections(port: int, batches: Sequence[Sequence[bytes]], measurements: Measurements) -> None:
    """Send each list of requests on a new connection, one after the other."""
    loop = asyncio.get_running_loop()
    for requests in batches:
        ended = loop.create_future()
        await loop.create_connection(partial(Client, requests, measurements, ended), HOST, port)
        await ended


async def run_load(port: int, workload: Workload, *, is_kept: bool = True) -> Measurements:
    requests = [build_request(prompt, workload) for prompt in workload.prompts()]
    measurements = Measurements()
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    if workload.rate is None:
        shares = [[requests[index] for index in part] for part in deal(workload.num_requests, workload.num_clients)]
        connections = [[share] if is_kept else [[request] for request in share] for share in shares]
        await asyncio.gather(*(run_connections(port, each, measurements) for each in connections))
    else:
        await OpenLoop(workload, measurements, port, is_kept=is_kept).run(requests, begin_s)
    measurements.elapsed_s = time.perf_counter() - begin_s
    measurements.cpu_s = time.process_time() - begin_cpu_s
    return measurements


def parse_workload(args: argparse.Namespace) -> Workload:
    return Workload(
        num_clients=args.clients,
        num_requests=args.requests if args.rate else args.clients * args.requests,
        rate=args.rate,
        min_prompt_tokens=args.prompt_tokens,
        max_prompt_tokens=args.max_prompt_tokens or args.prompt_tokens,
        num_new_tokens=args.new_tokens,
        top_k=args.top_k,
        vocab_size=args.vocab,
        seed=args.seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=1, help="connections")
    parser.add_argument("--requests", type=int, default=4, help="per client; in an open loop of all clients")
    parser.add_argument("--rate", type=float, help="open loop: requests per second")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--max-prompt-tokens", type=int, help="lengths are drawn from --prompt-tokens to this")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--vocab", type=int, default=50256, help="number of token ids from which prompts are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reconnect", action="store_true")
    parser.add_argument("--workload", type=Workload.from_json, help="all of these options as one JSON object")
    args = parser.parse_args()
    workload = args.workload or parse_workload(args)
    result = uvloop.run(run_load(args.port, workload, is_kept=not args.reconnect)).to_json()
    # Buffered even with PYTHONUNBUFFERED: without a buffer, bytes that don't fit into the pipe are lost.
    with open(sys.stdout.fileno(), "w", closefd=False) as output:
        print(result, file=output)


if __name__ == "__main__":
    main()
