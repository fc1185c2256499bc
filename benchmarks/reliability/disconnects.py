"""A thousand clients that disconnect at random times, under load: does anything stay behind?

    python -m benchmarks.reliability.disconnects
    python -m benchmarks.reliability.disconnects --disconnects 100 --windows 3 --window-requests 2

They disconnect while they send the body, while they wait, during the prefill, during a stream or another answer, with a
normal close or a reset, while other clients are served. Throughput is measured before and after, alternating with a
second, undisturbed server; the ratio of the two servers cancels out other load on the machine. At the end the server
gets a SIGTERM: a stuck request would delay its exit by the whole drain.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence

import uvloop
from benchmarks.load_client import run_load
from benchmarks.reliability.http_exchange import Connection, build_completion
from benchmarks.reliability.trial import (
    STORYTELLER,
    Figure,
    build_parser,
    conclude,
    describe_counts,
    held,
    is_idle,
    read_metrics,
    start_server,
    wait_metrics,
)
from benchmarks.server_process import ServerProcess
from benchmarks.workload import Workload

MAX_SETTLE_S = 2.0
MAX_LOSS = 0.05
DRAIN_S = 20
MAX_EXIT_S = 5.0
"""Far below the drain, because no request is in flight."""
VOCAB = 3000
MOMENTS = ("in the body", "after the body", "in the answer")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32, help="disconnecting clients at a time")
    parser.add_argument("--load", type=int, default=8, help="other clients at the same time")
    parser.add_argument("--windows", type=int, default=40, help="throughput windows per server, before and after")
    parser.add_argument("--window-requests", type=int, default=2, help="requests of each of 16 clients in a window")
    args = parser.parse_args(arguments)
    folder = args.model or STORYTELLER
    settings = {"MAX_NUM_SEQUENCES": 24, "DRAIN_S": DRAIN_S}  # some wait
    with start_server(args, folder, settings) as disturbed, start_server(args, folder, settings) as undisturbed:
        disturbed.wait_ready()
        undisturbed.wait_ready()
        figures = uvloop.run(measure(disturbed, undisturbed, args))
        disturbed.send_signal(signal.SIGTERM)
        signalled_s = time.perf_counter()
        status = disturbed.wait_exit(2 * DRAIN_S)
        exit_s = time.perf_counter() - signalled_s
    figures.append(
        Figure(
            "exit after SIGTERM",
            f"status {status} in {exit_s:.1f} s",
            f"status 0 in < {MAX_EXIT_S:g} s",
            status == 0 and exit_s < MAX_EXIT_S,
        )
    )
    conclude("disconnects", args, figures)


async def measure(disturbed: ServerProcess, undisturbed: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    rng = random.Random(args.seed)
    await compare_rates(disturbed, undisturbed, args, num_windows=1)  # the kernels prepare for each number of rows
    before = await compare_rates(disturbed, undisturbed, args, num_windows=args.windows)
    num_before = (await read_metrics(disturbed.port))["distilgpt2_client_disconnects_total"]
    moments = await disturb(disturbed.port, args, rng)
    ended_s = time.perf_counter()
    values = await wait_metrics(disturbed.port, is_idle, 20.0)
    settle_s = time.perf_counter() - ended_s
    num_noticed = values["distilgpt2_client_disconnects_total"] - num_before
    after = await compare_rates(disturbed, undisturbed, args, num_windows=args.windows)
    values = await wait_metrics(disturbed.port, is_idle, MAX_SETTLE_S)
    change = midmean(after) / midmean(before)
    return [
        Figure("disconnects", describe_counts(moments)),
        Figure("detected by the server", f"{num_noticed:.0f}"),
        Figure("running, waiting, blocks held", str([*held(values).values()]), "[0, 0, 0]", is_idle(values)),
        Figure("time until then", f"{settle_s:.2f} s", f"< {MAX_SETTLE_S:g} s", settle_s < MAX_SETTLE_S),
        Figure("throughput before, ratio of servers", f"{midmean(before):.3f} ({before[0]:.2f}-{before[-1]:.2f})"),
        Figure("throughput after", f"{midmean(after):.3f} ({after[0]:.2f}-{after[-1]:.2f})"),
        Figure("after / before", f"{change:.3f}", f"> {1 - MAX_LOSS:g}", change > 1 - MAX_LOSS),
    ]


async def compare_rates(
    disturbed: ServerProcess, undisturbed: ServerProcess, args: argparse.Namespace, *, num_windows: int
) -> list[float]:
    """Ratios of the servers' tokens/s in each pair of windows, sorted. The server that begins alternates."""
    ratios = []
    for index in range(num_windows):
        pair = [disturbed, undisturbed] if index % 2 else [undisturbed, disturbed]
        rates = {server.port: await measure_rate(server.port, args, index) for server in pair}
        ratios.append(rates[disturbed.port] / rates[undisturbed.port])
    return sorted(ratios)


def midmean(ordered: Sequence[float]) -> float:
    """The mean of the middle half: as robust as a median, and less noisy."""
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


async def measure_rate(port: int, args: argparse.Namespace, seed: int) -> float:
    num_requests = 16 * args.window_requests
    seen = await run_load(port, build_workload(num_clients=16, num_requests=num_requests, seed=seed))
    return seen.num_tokens / seen.elapsed_s


def build_workload(*, num_clients: int, num_requests: int, seed: int) -> Workload:
    return Workload(num_clients=num_clients, num_requests=num_requests, num_new_tokens=96, vocab_size=VOCAB, seed=seed)


async def disturb(port: int, args: argparse.Namespace, rng: random.Random) -> Counter[str]:
    """Run all disconnects while others are served; return their number by kind."""
    moments: Counter[str] = Counter()
    remaining = iter(range(args.disconnects))

    async def hang_up_again() -> None:
        for _ in remaining:
            moments[await hang_up(port, rng)] += 1

    async def load() -> None:
        seed = 0
        while sum(moments.values()) < args.disconnects:
            seed += 1
            await run_load(port, build_workload(num_clients=args.load, num_requests=args.load, seed=seed))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
        for _ in range(args.at_once):
            tasks.create_task(hang_up_again())
    return moments


async def hang_up(port: int, rng: random.Random, *, vocab: int = VOCAB) -> str:
    """Send a request and disconnect at a random moment; return the kind of moment."""
    prompt = [rng.randrange(vocab) for _ in range(rng.choice([1, 32, 300]))]
    num_completions, is_stream = rng.choice([1, 1, 1, 3]), rng.random() < 0.6
    max_tokens = rng.choice([20, 200])
    request = build_completion(prompt, max_tokens=max_tokens, n=num_completions, stream=is_stream)
    moment, wait_s = rng.choice(MOMENTS), 10 ** rng.uniform(-3.5, -0.3)
    connection = await Connection.open(port)
    if moment == "in the body":
        connection.send(request[: rng.randrange(1, len(request))])
        await asyncio.sleep(wait_s / 10)
    elif moment == "after the body":
        connection.send(request)
        await asyncio.sleep(wait_s)
    else:
        has_head = asyncio.Event()
        answer = asyncio.create_task(connection.ask(request, on_head=has_head.set))
        await asyncio.wait([answer, asyncio.create_task(has_head.wait())], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(wait_s)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
    if rng.random() < 0.5:
        connection.reset()
    else:
        connection.close()
    return moment


if __name__ == "__main__":
    main()
