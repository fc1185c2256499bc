"""Thousands of connections that send a byte per second: do other clients wait longer for their first token?

    python -m benchmarks.reliability.slow_loris
    python -m benchmarks.reliability.slow_loris --connections 200 --phase-s 3 --rounds 1

Three of four connections send a header slowly, the fourth a body; `slow_senders` is their program. Phases without and
with them alternate. Normal clients send each request on a new connection, and measure TTFT from connecting to the first
event.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from benchmarks.reliability.http_exchange import FINISH, ask_once, build_completion, name_failure
from benchmarks.reliability.trial import (
    STORYTELLER,
    Figure,
    build_parser,
    conclude,
    describe_counts,
    limit_fds,
    start_server,
)
from benchmarks.report import percentile
from benchmarks.server_process import ServerProcess

MAX_RATIO = 2.0
NUM_SPARE_FDS = 500


@dataclass(slots=True)
class Phase:
    """Results of normal clients, with or without slow ones. Mutable, owned by the program."""

    ttfts_s: list[float] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--connections", type=int, default=2000, help="slow connections")
    parser.add_argument("--clients", type=int, default=4, help="normal clients")
    parser.add_argument("--phase-s", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of one phase without, one with")
    args = parser.parse_args(arguments)
    limit_fds(args.connections + NUM_SPARE_FDS)
    without, with_them, reports = Phase(), Phase(), []
    with start_server(args, args.model or STORYTELLER, {}) as server:
        server.wait_ready()
        uvloop.run(load(server.port, args.clients, 2.0, Phase()))  # the kernels prepare for each number of rows
        for _ in range(args.rounds):
            uvloop.run(load(server.port, args.clients, args.phase_s, without))
            with slow_senders(server, args.connections) as report:
                uvloop.run(load(server.port, args.clients, args.phase_s, with_them))
            reports.append(report)
    conclude("slow_loris", args, describe(without, with_them, reports), reports=reports)


def describe(without: Phase, with_them: Phase, reports: Sequence[dict[str, Any]]) -> list[Figure]:
    figures = []
    for name, phase in (("without", without), ("with", with_them)):
        are_whole = phase.endings.keys() == {FINISH}
        figures.append(Figure(f"normal requests, {name}", describe_counts(phase.endings), "whole", are_whole))
    for percent in (50, 99):
        before_s, after_s = (percentile(phase.ttfts_s, percent) for phase in (without, with_them))
        ratio = after_s / before_s
        figures.append(
            Figure(
                f"TTFT p{percent}, without and with",
                f"{1000 * before_s:.1f}, {1000 * after_s:.1f} ms: {ratio:.2f} times",
                f"< {MAX_RATIO:g} times" if percent == 99 else "",
                ratio < MAX_RATIO if percent == 99 else None,
            )
        )
    cuts: Counter[str] = sum((Counter(report["cuts"]) for report in reports), Counter())
    lifetimes = ", ".join(f"{report['lifetime_s']}" for report in reports)
    figures.append(Figure("slow connections open at the end", ", ".join(str(one["num_connected"]) for one in reports)))
    figures.append(Figure("slow connections cut off", describe_counts(cuts)))
    figures.append(Figure("after, median, s", lifetimes))
    return figures


@contextmanager
def slow_senders(server: ServerProcess, num_connections: int) -> Iterator[dict[str, Any]]:
    """Slow clients, all connected inside the context; afterwards the yielded dict has their report."""
    command = [sys.executable, "-m", "benchmarks.reliability.slow_senders", str(server.port)]
    process = subprocess.Popen(
        [*command, f"--connections={num_connections}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    report: dict[str, Any] = {}
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the slow clients ended before they had connected")
        yield report
        process.stdin.close()
        report |= json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def load(port: int, num_clients: int, duration_s: float, phase: Phase) -> None:
    end_s = time.perf_counter() + duration_s

    async def run_client(number: int) -> None:
        seed = 0
        while time.perf_counter() < end_s:
            seed += 1
            request = build_completion(f"client {number} says {seed}", max_tokens=8, stream=True, seed=seed)
            begin_s = time.perf_counter()
            try:
                answer = await ask_once(port, request)
            except OSError as error:
                phase.endings[name_failure(error)] += 1
                continue
            phase.endings[answer.ending] += 1
            if answer.chunks_s:
                phase.ttfts_s.append(answer.chunks_s[0] - begin_s)

    await asyncio.gather(*(run_client(number) for number in range(num_clients)))


if __name__ == "__main__":
    main()
