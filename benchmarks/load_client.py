"""A lean client for load: streamed completions over raw sockets, closed loop. A process of its own, so that its
share of the processor is known and the server's is its own.

    python -m benchmarks.load_client PORT --clients 32 --requests 4

Each client keeps one connection and sends its next request when the last one has ended. HTTP/1.1 is read strictly
enough to fail on anything but a chunked event stream; events are counted and timed, their JSON is not parsed, but for
the last one's usage. Prints one line of JSON; times in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop

HEADER_END = b"\r\n\r\n"
PIECE = b'"choices":[{'
"""In every event with text, and not in the last two: usage and `[DONE]`."""
USAGE = b'"usage":{'
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


class ServerAnsweredError(Exception):
    """Anything but 200 and a chunked stream."""


@dataclass(slots=True)
class Measurements:
    """Mutable, owned by one load: what all of its clients saw."""

    num_tokens: int = 0
    num_requests: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    """From the request's first byte sent to its first piece of text."""
    itls_s: list[float] = field(default_factory=list)
    """Between pieces of one request's text, those that come in one read being one."""


class Client(asyncio.Protocol):
    """One connection: sends a request, reads its stream, sends the next."""

    def __init__(self, requests: Sequence[bytes], measurements: Measurements, ended: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self._measurements = measurements
        self._ended = ended
        self._buffer = b""
        self._is_in_body = False
        self._sent_s = 0.0
        self._last_piece_s = 0.0
        self._usage = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._send_next()

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        try:
            self._read(self._buffer + data if self._buffer else data, now_s)
        except (ServerAnsweredError, ValueError) as error:
            self._transport.abort()
            if not self._ended.done():
                self._ended.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _send_next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._ended.set_result(None)
            self._transport.close()
            return
        self._is_in_body = False
        self._last_piece_s = 0.0
        self._sent_s = time.perf_counter()
        self._transport.write(request)

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
            has_pieces = has_pieces or data.find(PIECE, begin, end) >= 0
            if data.find(USAGE, begin, end) >= 0:
                self._usage = data[begin:end]
        self._buffer = data[position:]
        if has_pieces:
            self._mark_pieces(now_s)

    def _read_head(self, data: bytes) -> int:
        """Where the body begins; 0 while the head is not whole."""
        end = data.find(HEADER_END)
        if end < 0:
            return 0
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 200 ") or b"transfer-encoding: chunked" not in head:
            raise ServerAnsweredError(data[:500].decode(errors="replace"))
        self._is_in_body = True
        return end + len(HEADER_END)

    def _mark_pieces(self, now_s: float) -> None:
        if self._last_piece_s:
            self._measurements.itls_s.append(now_s - self._last_piece_s)
        else:
            self._measurements.ttfts_s.append(now_s - self._sent_s)
        self._last_piece_s = now_s

    def _end_stream(self) -> None:
        match = COMPLETION_TOKENS.search(self._usage)
        if match is None:
            raise ServerAnsweredError("a stream ended without usage")
        self._measurements.num_tokens += int(match[1])
        self._measurements.num_requests += 1
        self._buffer = self._usage = b""
        self._send_next()


def build_request(host: str, prompt: str | list[int], args: argparse.Namespace, seed: int) -> bytes:
    body = json.dumps(
        {
            "prompt": prompt,
            "max_tokens": args.new_tokens,
            "temperature": 1.0,
            "top_k": args.top_k,
            "seed": seed,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run_load(args: argparse.Namespace) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    chance = random.Random(args.seed)
    measurements = Measurements()
    clients = []
    for _ in range(args.clients):
        requests = [
            build_request(
                args.host,
                [chance.randrange(args.vocab) for _ in range(args.prompt_tokens)],
                args,
                chance.randrange(1 << 31),
            )
            for _ in range(args.requests)
        ]
        clients.append(requests)
    ended = [loop.create_future() for _ in clients]
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    for requests, future in zip(clients, ended, strict=True):
        await loop.create_connection(partial(Client, requests, measurements, future), args.host, args.port)
    await asyncio.gather(*ended)
    return {
        "num_tokens": measurements.num_tokens,
        "num_requests": measurements.num_requests,
        "elapsed_s": time.perf_counter() - begin_s,
        "cpu_s": time.process_time() - begin_cpu_s,
        "ttfts_s": measurements.ttfts_s,
        "itls_s": measurements.itls_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=4, help="of each client, one after the other")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--vocab", type=int, default=50256, help="prompts are drawn from so many token ids")
    parser.add_argument("--seed", type=int, default=0)
    result = json.dumps(uvloop.run(run_load(parser.parse_args())))
    # Buffered whatever PYTHONUNBUFFERED says: without a buffer what the pipe can't take at once is lost.
    with open(sys.stdout.fileno(), "w", closefd=False) as output:
        print(result, file=output)


if __name__ == "__main__":
    main()
