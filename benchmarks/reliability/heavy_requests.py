"""The heaviest request of each kind beside running streams: how long do the streams stop, how much memory does it take?

    python -m benchmarks.reliability.heavy_requests
    python -m benchmarks.reliability.heavy_requests --rows stop tokenize

Each field of variable length is at its limit, with as many prompts or completions as allowed; some rows exceed a limit
and are refused. Streams of another client run all the time, so that one of them is always in the middle of its text. A
row's gap is the longest time between two of their events; its memory is the worker's peak minus its memory before. A
row that misses a bound is repeated, because a gap can have other causes on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from benchmarks.reliability.heavy_bodies import Row, build_rows
from benchmarks.reliability.http_exchange import (
    FINISH,
    Connection,
    ask_once,
    build_completion,
    build_get,
    build_post,
    try_once,
)
from benchmarks.reliability.trial import (
    MIB,
    STORYTELLER,
    Figure,
    build_parser,
    conclude,
    describe_counts,
    is_idle,
    read_rss_bytes,
    start_server,
    wait_metrics,
)
from benchmarks.server_process import ServerProcess

MAX_GAP_S = 0.25
MAX_PEAK_BYTES = 200_000_000
NUM_STREAMS = 3
STREAM_TOKENS = 400
STREAM_SOURCE, HEAVY_SOURCE = "127.0.0.3", "127.0.0.2"
ALONE_S = 10.0
"""Time of streams alone, to measure the gaps without heavy requests."""
SETTLE_S = 0.3
"""Time of streams alone before and after each row."""
TIMEOUT_S = 120.0
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@dataclass(frozen=True, slots=True)
class Result:
    """The cost of one row, and the endings of its requests."""

    gap_s: float
    peak_bytes: int
    wall_s: float
    endings: Counter[str]

    @property
    def is_kept(self) -> bool:
        return self.gap_s < MAX_GAP_S and self.peak_bytes < MAX_PEAK_BYTES


class Streams:
    """Owns permanent streams of one client, and measures their longest gap."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self._last_s: dict[int, float] = {}
        """When each stream that is in the middle of its text had its last event."""
        self._longest_s = 0.0
        self._since_s = 0.0

    async def start(self) -> None:
        """Start the streams one after the other, so that they don't end at the same time."""
        for index in range(NUM_STREAMS):
            self._tasks.append(asyncio.create_task(self._run(index)))
            await asyncio.sleep(SETTLE_S)

    async def stop(self) -> None:
        """Raises RuntimeError for a stream that did not end properly."""
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end

    def begin(self) -> None:
        """Forget the gaps so far."""
        self._longest_s, self._since_s = 0.0, time.perf_counter()

    def longest_gap_s(self) -> float:
        """Since `begin`, those included that have not ended."""
        now_s = time.perf_counter()
        for last_s in self._last_s.values():
            self._note_gap(last_s, now_s)
        return self._longest_s

    async def _run(self, index: int) -> None:
        request = build_completion(f"stream {index}", max_tokens=STREAM_TOKENS, stream=True)
        while True:
            with await Connection.open(self._port, source=STREAM_SOURCE) as connection:
                answer = await connection.ask(request, on_chunk=partial(self._note_event, index))
                self._last_s.pop(index, None)
                if answer.ending != FINISH:
                    raise RuntimeError(f"a stream ended with {answer.ending}")

    def _note_event(self, index: int, now_s: float) -> None:
        if index in self._last_s:
            self._note_gap(self._last_s[index], now_s)
        self._last_s[index] = now_s

    def _note_gap(self, begin_s: float, end_s: float) -> None:
        self._longest_s = max(self._longest_s, end_s - max(begin_s, self._since_s))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rows", nargs="+", metavar="WORD", help="only rows with one of these words in their names")
    parser.add_argument("--prompts", type=int, default=1000, help="prompts of one request, in rows with many")
    parser.add_argument("--repeats", type=int, default=3, help="maximum repeats of a row that misses a bound")
    args = parser.parse_args(arguments)
    conclude("heavy_requests", args, run(args))


def run(args: argparse.Namespace) -> list[Figure]:
    """Start a server and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.jinja"
        template.write_text(TEMPLATE)
        settings = {
            "CHAT_TEMPLATE": template,
            "BATCH_STORE": f"sqlite:///{folder}/store.db",
            "MAX_FILE_BYTES": 4 * MIB,
        }
        with start_server(args, args.model or STORYTELLER, settings) as server:
            server.wait_ready()
            return uvloop.run(measure(server, args))


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    rows = build_rows(args.prompts)
    await warm_up(server, args.prompts)
    streams = Streams(server.port)
    await streams.start()
    streams.begin()
    await asyncio.sleep(ALONE_S)
    figures = [Figure("streams alone", f"{1000 * streams.longest_gap_s():.0f} ms in {ALONE_S:g} s")]
    for row in rows:
        if args.rows is None or any(word in row.name for word in args.rows):
            figures.append(await measure_row(server, streams, row, num_repeats=args.repeats))
            print(f"{figures[-1].name}: {figures[-1].value}", flush=True)
    await streams.stop()
    values = await wait_metrics(server.port, is_idle, 30.0)
    figures.append(Figure("nothing runs or waits afterwards", str(is_idle(values)), "True", is_idle(values)))
    return figures


async def warm_up(server: ServerProcess, num_prompts: int) -> None:
    """Send long prompts and many at once: it fills the KV cache, and the kernels prepare for each number of rows."""
    prompts = [[index % 100 + 1] * 480 for index in range(num_prompts)]
    for body in ({"prompt": prompts, "max_tokens": 2}, {"prompt": "x", "max_tokens": 2, "guided_regex": "[a-z]+"}):
        await ask_once(server.port, build_post("/v1/completions", body), source=HEAVY_SOURCE, timeout_s=TIMEOUT_S)


async def measure_row(server: ServerProcess, streams: Streams, row: Row, *, num_repeats: int) -> Figure:
    results = []
    for _ in range(num_repeats):
        results.append(await measure_once(server, streams, row))
        if results[-1].is_kept:
            break
    best = min(results, key=lambda result: (not result.is_kept, result.gap_s, result.peak_bytes))
    value = f"{1000 * best.gap_s:.0f} ms, {best.peak_bytes / 1e6:.0f} MB"
    value += f" ({describe_counts(best.endings)}; {best.wall_s:.1f} s"
    value += f"; {len(results)} times)" if len(results) > 1 else ")"
    is_as_expected = best.endings.keys() <= set(row.endings)
    bound = f"< {1000 * MAX_GAP_S:.0f} ms, < {MAX_PEAK_BYTES / 1e6:.0f} MB; {' or '.join(row.endings)}"
    return Figure(row.name, value, bound, best.is_kept and is_as_expected)


async def measure_once(server: ServerProcess, streams: Streams, row: Row) -> Result:
    pid = server.worker_pid()
    requests = [build_request(path, body) for path, body in row.requests]  # in advance: it blocks this loop
    await wait_for_streams_alone(server.port)
    await asyncio.sleep(SETTLE_S)
    rest_bytes = read_rss_bytes(pid)
    forget_peak(pid)
    streams.begin()
    begin_s = time.perf_counter()
    endings: Counter[str] = Counter()
    await asyncio.gather(*(send(server.port, row, request, endings) for request in requests))
    wall_s = time.perf_counter() - begin_s
    await asyncio.sleep(SETTLE_S)
    return Result(streams.longest_gap_s(), read_peak_bytes(pid) - rest_bytes, wall_s, endings)


def build_request(path: str, body: dict[str, Any] | bytes | None) -> bytes:
    return body if isinstance(body, bytes) else build_get(path) if body is None else build_post(path, body)


async def send(port: int, row: Row, request: bytes, endings: Counter[str]) -> None:
    if row.hang_up_s is None:
        endings[await try_once(port, request, source=HEAVY_SOURCE, timeout_s=TIMEOUT_S)] += 1
        return
    with await Connection.open(port, source=HEAVY_SOURCE) as connection:
        connection.send(request)
        await asyncio.sleep(row.hang_up_s)
        connection.reset()
    endings["hung up"] += 1


async def wait_for_streams_alone(port: int) -> None:
    def are_alone(values: dict[str, float]) -> bool:
        return not values["distilgpt2_waiting_sequences"] and values["distilgpt2_running_sequences"] <= NUM_STREAMS

    await wait_metrics(port, are_alone, TIMEOUT_S)


def forget_peak(pid: int) -> None:
    """Reset the process's peak of resident memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_peak_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
