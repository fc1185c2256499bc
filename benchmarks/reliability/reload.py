"""Gunicorn's HUP under load, many times: is a request lost?

    python -m benchmarks.reliability.reload
    python -m benchmarks.reliability.reload --times 2 --clients 2

HUP starts a new worker and ends the old one. Clients with new connections, kept-alive connections and streams keep
sending. A request without a complete answer, or with 503, is lost. The next HUP follows when the old worker has ended
and the new one is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import Sequence

import uvloop
from benchmarks.reliability.background_load import BackgroundLoad, wait_ready
from benchmarks.reliability.trial import STORYTELLER, Figure, build_parser, conclude, describe_counts, start_server
from benchmarks.server_process import ServerProcess

CALM_S = 0.5
RELOAD_TIMEOUT_S = 30.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4, help="clients of each of three kinds")
    parser.add_argument("--stream-tokens", type=int, default=150)
    args = parser.parse_args(arguments)
    with start_server(args, args.model or STORYTELLER, {"DRAIN_S": 20}) as server:
        server.wait_ready()
        figures = uvloop.run(measure(server, args))
    conclude("reload", args, figures)


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    reloads_s = []
    async with BackgroundLoad(server.port, num_clients=args.clients, stream_tokens=args.stream_tokens) as load:
        for _ in range(args.times):
            await asyncio.sleep(CALM_S)
            reloads_s.append(await reload(server))
        await asyncio.sleep(CALM_S)
    return [
        Figure("reloads", f"{args.times} in {min(reloads_s):.1f} to {max(reloads_s):.1f} s"),
        *(Figure(kind, describe_counts(endings)) for kind, endings in load.endings.items()),
        Figure("lost requests", f"{load.num_failed}", "0", load.num_failed == 0),
    ]


async def reload(server: ServerProcess) -> float:
    """Reload; return the seconds until only the new worker runs."""
    old = server.worker_pids()
    begin_s = time.perf_counter()
    server.send_signal(signal.SIGHUP)
    async with asyncio.timeout(RELOAD_TIMEOUT_S):
        while len(pids := server.worker_pids()) != 1 or pids == old:  # noqa: ASYNC110 - processes offer no event
            await asyncio.sleep(0.02)
    await wait_ready(server.port, timeout_s=RELOAD_TIMEOUT_S)
    return time.perf_counter() - begin_s


if __name__ == "__main__":
    main()
