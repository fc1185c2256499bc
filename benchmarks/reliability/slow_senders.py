"""Clients that send a byte per second: endless headers and bodies. It is a separate process, so that its work does not
delay the measured clients.

    python -m benchmarks.reliability.slow_senders PORT --connections 2000

A client reconnects at once if the server cuts it off. Prints `ready` when all have connected. When its standard input
ends, it prints a line of JSON: the number of cut connections by kind and answer, and their lifetime in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from functools import partial
from typing import cast

import uvloop

INTERVAL_S = 1.0
TURNS = 20
"""Number of groups in which the connections send, spread over the interval."""
OPEN_AT_ONCE = 64
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY_HEAD = HEAD + b"content-length: 100000\r\n\r\n"


class Crowd:
    """Owns the connections and counts their endings."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connected: set[SlowSender] = set()
        self.cuts: Counter[str] = Counter()
        self.lifetimes_s: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        source = (f"127.0.1.{index % 40 + 1}", 0)
        while True:
            try:
                await loop.create_connection(
                    partial(SlowSender, self, index), "127.0.0.1", self._port, local_addr=source
                )
            except OSError as error:
                self.cuts[f"not connected: {type(error).__name__}"] += 1
                await asyncio.sleep(INTERVAL_S)
            else:
                return

    def note_end(self, sender: SlowSender, answer: str, lifetime_s: float) -> None:
        self.connected.discard(sender)
        self.cuts[f"{sender.kind}: {answer}"] += 1
        self.lifetimes_s.append(lifetime_s)
        task = asyncio.create_task(self.open(sender.index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class SlowSender(asyncio.Protocol):
    """One connection: every fourth sends a body, the others a header."""

    def __init__(self, crowd: Crowd, index: int) -> None:
        self._crowd = crowd
        self._position = 0
        self._answer = b""
        self.index = index
        self.kind = "head" if index % 4 else "body"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._begin_s = time.perf_counter()
        self._crowd.connected.add(self)
        if self.kind == "body":
            self._transport.write(BODY_HEAD)

    def data_received(self, data: bytes) -> None:
        self._answer = self._answer or data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        words = self._answer.split(b" ", 2)
        answer = words[1].decode() if len(words) > 1 else "closed"
        self._crowd.note_end(self, answer, time.perf_counter() - self._begin_s)

    def send_byte(self) -> None:
        if self.kind == "body":
            byte = b'{"prompt": "'[self._position : self._position + 1] or b"a"
        else:
            byte = HEAD[self._position : self._position + 1] or b"x"
        self._position += 1
        self._transport.write(byte)


async def run(args: argparse.Namespace) -> dict[str, object]:
    crowd = Crowd(args.port)
    indexes = iter(range(args.connections))

    async def open_some() -> None:
        for index in indexes:
            await crowd.open(index)

    await asyncio.gather(*(open_some() for _ in range(OPEN_AT_ONCE)))
    print("ready", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    turn = 0
    while not ended.done():
        for sender in [sender for sender in crowd.connected if sender.index % TURNS == turn]:
            sender.send_byte()
        turn = (turn + 1) % TURNS
        await asyncio.wait([ended], timeout=INTERVAL_S / TURNS)
    lifetimes_s = crowd.lifetimes_s
    return {
        "num_connected": len(crowd.connected),
        "cuts": crowd.cuts,
        "lifetime_s": statistics.median(lifetimes_s) if lifetimes_s else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=2000)
    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
