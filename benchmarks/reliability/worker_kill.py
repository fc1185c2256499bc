"""`kill -9` of the worker under load, many times: when is the service back, and how do requests end?

    python -m benchmarks.reliability.worker_kill
    python -m benchmarks.reliability.worker_kill --times 2 --clients 2

The time is from the signal until /readyz answers 200 on a new connection. Requests in flight are lost: their clients
must see a broken connection at once, and never a stream or an answer that looks complete. Requests that arrive while
no worker serves wait at the port, or get 503.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence

import uvloop
from benchmarks.reliability.background_load import BackgroundLoad, wait_ready
from benchmarks.reliability.trial import STORYTELLER, Figure, build_parser, conclude, describe_counts, start_server
from benchmarks.server_process import ServerProcess

MAX_BACK_S = 2.0
CALM_S = 1.0
READY_TIMEOUT_S = 30.0
EXPECTED = {"503", "closed without an answer", "cut in mid-answer"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4, help="clients of each of three kinds")
    parser.add_argument("--stream-tokens", type=int, default=150)
    args = parser.parse_args(arguments)
    with start_server(args, args.model or STORYTELLER, {}) as server:
        server.wait_ready()
        figures = uvloop.run(measure(server, args))
    conclude("worker_kill", args, figures)


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    backs_s = []
    async with BackgroundLoad(server.port, num_clients=args.clients, stream_tokens=args.stream_tokens) as load:
        for _ in range(args.times):
            await asyncio.sleep(CALM_S)
            begin_s = time.perf_counter()
            os.kill(server.worker_pid(), signal.SIGKILL)
            await wait_ready(server.port, timeout_s=READY_TIMEOUT_S)
            backs_s.append(time.perf_counter() - begin_s)
        await asyncio.sleep(CALM_S)
    median_s, failures = statistics.median(backs_s), Counter(how for _, _, how in load.failures)
    return [
        Figure("ready again, median", f"{median_s:.2f} s", f"< {MAX_BACK_S:g} s", median_s < MAX_BACK_S),
        Figure("ready again, longest", f"{max(backs_s):.2f} s"),
        *(Figure(kind, describe_counts(endings)) for kind, endings in load.endings.items()),
        Figure("failures", describe_counts(failures), "broken connections, 503", failures.keys() <= EXPECTED),
    ]


if __name__ == "__main__":
    main()
