"""Clients that open long streams and never read them: are they cut off, and are other clients affected?

    python -m benchmarks.reliability.slow_readers
    python -m benchmarks.reliability.slow_readers --readers 4 --rounds 1 --setting WRITE_TIMEOUT_S=1

They have small receive buffers, and request much text with each token, so that the kernel's buffers fill in seconds.
Then the server must cut them off within the write timeout, with bounded memory until then. Meanwhile normal clients
stream for a few seconds and measure ITL. Phases in which the slow clients read alternate with phases in which they do
not, so that only the reading differs.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from benchmarks.load_client import run_load
from benchmarks.model_folder import prepare_tiny_model_folder
from benchmarks.reliability.http_exchange import HOST, build_completion
from benchmarks.reliability.trial import (
    MIB,
    Figure,
    build_parser,
    conclude,
    held,
    is_idle,
    read_metrics,
    read_rss_bytes,
    start_server,
    wait_metrics,
)
from benchmarks.report import percentile
from benchmarks.server_process import ServerProcess
from benchmarks.workload import Workload

RECEIVE_BUFFER_BYTES = 4096
NUM_TOKENS = 100_000
WRITE_TIMEOUT_S = 3.0
MARGIN_S = 2.0
POLL_S = 0.05
MAX_PHASE_S = 60.0
LOAD_S = 6.0
MAX_GROWTH_BYTES = 4 * MIB
"""Limit of memory growth per reader."""
MAX_RATIOS = {50: 1.25, 99: 1.5}
RUNNING = "distilgpt2_running_sequences"


@dataclass(slots=True)
class Phase:
    """Results of phases in which the slow clients read, or did not. Mutable, owned by the program."""

    itls_s: list[float] = field(default_factory=list)
    cuts_s: list[float] = field(default_factory=list)
    """Seconds from the last byte into the kernel's buffers until all their streams ended; one per phase."""
    fills_s: list[float] = field(default_factory=list)
    growths_bytes: list[int] = field(default_factory=list)
    queued_bytes: list[int] = field(default_factory=list)
    """Bytes in the kernel's buffers."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--readers", type=int, default=16, help="clients that do not read")
    parser.add_argument("--clients", type=int, default=4, help="normal clients")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of one phase with reading, one without")
    args = parser.parse_args(arguments)
    settings = {"WRITE_TIMEOUT_S": WRITE_TIMEOUT_S, "MAX_WAITING_TOKENS": 100_000_000}
    with start_server(args, prepare_tiny_model_folder(args.model), settings) as server:
        server.wait_ready()
        figures = uvloop.run(measure(server, args))
    conclude("slow_readers", args, figures)


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    read, unread = Phase(), Phase()
    await run_phase(server, args, Phase(), is_read=True)  # the kernels prepare for each number of rows
    for _ in range(args.rounds):
        await run_phase(server, args, read, is_read=True)
        await run_phase(server, args, unread, is_read=False)
    values = await wait_metrics(server.port, is_idle, 2.0)
    given = dict(setting.split("=", 1) for setting in args.setting)
    max_cut_s = float(given.get("WRITE_TIMEOUT_S", WRITE_TIMEOUT_S)) + MARGIN_S
    growth = max(unread.growths_bytes) / args.readers
    figures = [
        Figure("kernel's buffers per reader", f"{max(unread.queued_bytes) / args.readers / MIB:.2f} MiB"),
        Figure("full after", " ".join(f"{fill_s:.1f}" for fill_s in unread.fills_s) + " s"),
        Figure(
            "cut off after that",
            " ".join(f"{cut_s:.1f}" for cut_s in unread.cuts_s) + " s",
            f"< {max_cut_s:g} s",
            max(unread.cuts_s) < max_cut_s,
        ),
        Figure(
            "memory per reader until then",
            f"{growth / MIB:.2f} MiB",
            f"< {MAX_GROWTH_BYTES / MIB:g} MiB",
            growth < MAX_GROWTH_BYTES,
        ),
        Figure("running, waiting, blocks held", str([*held(values).values()]), "[0, 0, 0]", is_idle(values)),
    ]
    for percent, max_ratio in MAX_RATIOS.items():
        before_s, after_s = percentile(read.itls_s, percent), percentile(unread.itls_s, percent)
        ratio = after_s / before_s
        words = f"{1000 * before_s:.1f}, {1000 * after_s:.1f} ms: {ratio:.2f} times"
        figures.append(
            Figure(f"others' ITL p{percent}, read and unread", words, f"< {max_ratio:g} times", ratio < max_ratio)
        )
    return figures


async def run_phase(server: ServerProcess, args: argparse.Namespace, phase: Phase, *, is_read: bool) -> None:
    """Open all streams, then run normal load; unread streams run until they are cut off."""
    await wait_metrics(server.port, is_idle, 10.0)
    begin_bytes, begin_s = read_rss_bytes(server.worker_pid()), time.perf_counter()
    readers = [await open_stream(server.port, index) for index in range(args.readers)]
    reading = [asyncio.create_task(read_all(reader)) for reader in readers] if is_read else []
    loading = asyncio.create_task(load(server.port, args.clients, phase))
    try:
        if is_read:
            await loading
            return
        await wait_metrics(server.port, lambda values: values[RUNNING] >= args.readers, 10.0)
        largest_bytes, filled_s, num_queued = 0, begin_s, -1
        while (await read_metrics(server.port))[RUNNING] > args.clients:
            now_s = time.perf_counter()
            if now_s - begin_s > MAX_PHASE_S:
                break
            largest_bytes = max(largest_bytes, read_rss_bytes(server.worker_pid()))
            if (queued := count_queued_bytes(server.port)) > num_queued:
                filled_s, num_queued = now_s, queued
            await asyncio.sleep(POLL_S)
        phase.fills_s.append(filled_s - begin_s)
        phase.cuts_s.append(time.perf_counter() - filled_s)
        phase.queued_bytes.append(num_queued)
        phase.growths_bytes.append(largest_bytes - begin_bytes)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for reader in readers:
            reader.close()
        await loading


async def open_stream(port: int, seed: int) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, (HOST, port))
    request = build_completion(max_tokens=NUM_TOKENS, logprobs=20, stream=True, seed=seed)
    await loop.sock_sendall(reader, request)
    return reader


async def read_all(reader: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(reader, MIB):
        pass


async def load(port: int, num_clients: int, phase: Phase) -> None:
    seed, end_s = 0, time.perf_counter() + LOAD_S
    while time.perf_counter() < end_s:
        seed += 1
        workload = Workload(
            num_clients=num_clients,
            num_requests=2 * num_clients,
            min_prompt_tokens=8,
            max_prompt_tokens=8,
            num_new_tokens=100,
            vocab_size=256,
            seed=seed,
        )
        phase.itls_s += (await run_load(port, workload)).itls_s


def count_queued_bytes(port: int) -> int:
    """Bytes that the server has sent and its clients have not received: /proc/net/tcp, columns local and tx_queue."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}"))


if __name__ == "__main__":
    main()
