"""One client has a thousand requests in the queue: how long does another client's first token take?

    python -m benchmarks.reliability.fairness
    python -m benchmarks.reliability.fairness --queued 200 --requests 5

The busy client (`crowd`) has one loopback address, or with `--keys` one API key. The other client, with another address
or key, sends one request at a time and measures TTFT: alone, then behind the crowd. With first come, first served it
would wait for the whole queue, like the crowd's last request; the bound is on its share of that time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence

import uvloop
from benchmarks.reliability.http_exchange import ask_once, build_completion, name_failure
from benchmarks.reliability.trial import (
    STORYTELLER,
    Figure,
    build_parser,
    conclude,
    describe_counts,
    limit_fds,
    start_server,
    wait_metrics,
)
from benchmarks.server_process import ServerProcess

MAX_SHARE = 0.1
CROWD, OTHER = "crowd", "other"
SOURCES = {CROWD: "127.0.0.2", OTHER: "127.0.0.3"}
KEYS = {CROWD: "crowd-0123456789abcdef", OTHER: "other-0123456789abcdef"}
MAX_NUM_SEQUENCES = 8
NEW_TOKENS = 32
TIMEOUT_S = 300.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--queued", type=int, default=1000, help="requests of the busy client")
    parser.add_argument("--requests", type=int, default=10, help="of the other client, alone and behind the crowd")
    parser.add_argument("--keys", action="store_true", help="the clients have API keys and the same address")
    args = parser.parse_args(arguments)
    conclude("fairness", args, run(args))


def run(args: argparse.Namespace) -> list[Figure]:
    """Start a server and measure it."""
    limit_fds(args.queued + 500)
    settings: dict[str, object] = {
        "MAX_NUM_SEQUENCES": MAX_NUM_SEQUENCES,
        "MAX_WAITING_REQUESTS": args.queued + 100,
        "KEY_MAX_REQUESTS": args.queued + 100,
    }
    if args.keys:
        settings["API_KEYS"] = ",".join(f"{name}:{key}" for name, key in KEYS.items())
    with start_server(args, args.model or STORYTELLER, settings) as server:
        server.wait_ready()
        return uvloop.run(measure(server, args))


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    await measure_ttfts(server, args, 3)  # the kernels prepare for each number of rows
    alone_s = await measure_ttfts(server, args, args.requests)
    begin_s = time.perf_counter()
    ends_s: list[float] = []
    endings: Counter[str] = Counter()
    crowd = [asyncio.create_task(run_one(server.port, args, index, ends_s, endings)) for index in range(args.queued)]
    num_wanted = args.queued - 2 * MAX_NUM_SEQUENCES
    await wait_metrics(
        server.port, lambda values: values["distilgpt2_waiting_sequences"] >= num_wanted, 5.0, key=key_of(OTHER, args)
    )
    behind_s = await measure_ttfts(server, args, args.requests)
    num_left = sum(not task.done() for task in crowd)
    await asyncio.gather(*crowd)
    fifo_s = max(ends_s) - begin_s
    share = behind_s[0] / fifo_s
    return [
        Figure("requests of the busy client", describe_counts(endings)),
        Figure("its last one, first come, first served", f"{fifo_s:.2f} s"),
        Figure("the other client's TTFT alone, median", f"{1000 * statistics.median(alone_s):.0f} ms"),
        Figure("behind the queue, first", f"{1000 * behind_s[0]:.0f} ms"),
        Figure("behind the queue, median", f"{1000 * statistics.median(behind_s):.0f} ms"),
        Figure("queued requests in flight after these", f"{num_left}"),
        Figure("first / first come, first served", f"{share:.3f}", f"< {MAX_SHARE:g}", share < MAX_SHARE),
    ]


async def measure_ttfts(server: ServerProcess, args: argparse.Namespace, num_requests: int) -> list[float]:
    ttfts_s = []
    for seed in range(num_requests):
        request = build_completion(f"other {seed}", key=key_of(OTHER, args), max_tokens=NEW_TOKENS, stream=True)
        answer = await ask_once(server.port, request, source=source_of(OTHER, args), timeout_s=TIMEOUT_S)
        if not answer.chunks_s:
            raise RuntimeError(f"the other client got {answer.ending}")
        ttfts_s.append(answer.ttft_s)
    return ttfts_s


async def run_one(port: int, args: argparse.Namespace, index: int, ends_s: list[float], endings: Counter[str]) -> None:
    request = build_completion(f"crowd {index}", key=key_of(CROWD, args), max_tokens=NEW_TOKENS)
    try:
        answer = await ask_once(port, request, source=source_of(CROWD, args), timeout_s=TIMEOUT_S)
        endings[answer.ending] += 1
    except OSError as error:
        endings[name_failure(error)] += 1
    ends_s.append(time.perf_counter())


def source_of(client: str, args: argparse.Namespace) -> str:
    return "127.0.0.1" if args.keys else SOURCES[client]


def key_of(client: str, args: argparse.Namespace) -> str | None:
    return KEYS[client] if args.keys else None


if __name__ == "__main__":
    main()
