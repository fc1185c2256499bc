"""Ten thousand idle connections and a full queue: do probes answer, and is the next request refused at once?

    python -m benchmarks.reliability.idle_connections
    python -m benchmarks.reliability.idle_connections --connections 1000 --queued 100 --probes 100

A stream of several minutes takes the only slot of a tiny model, and requests from several addresses fill the queue.
Idle connections are kept alive after an answer. Then, one after the other, each on a new connection: probes of /livez,
timed from connecting to the last byte; and requests beyond the queue's limit, from one of the addresses that fill it,
timed from sending to the 429's header.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import uvloop
from benchmarks.model_folder import prepare_tiny_model_folder
from benchmarks.reliability.http_exchange import (
    Answer,
    Connection,
    ask_once,
    build_completion,
    build_get,
    name_failure,
)
from benchmarks.reliability.trial import (
    Figure,
    build_parser,
    conclude,
    describe_counts,
    limit_fds,
    start_server,
    wait_metrics,
)
from benchmarks.report import percentile
from benchmarks.server_process import ServerProcess

MAX_PROBE_S = 0.1
MAX_REFUSAL_S = 0.05
NUM_SPARE_FDS = 500
OPEN_AT_ONCE = 64
ANSWER_TIMEOUT_S = 2.0
SOURCES = [f"127.0.0.{number}" for number in range(2, 42)]
"""Several source addresses, so that neither ephemeral ports nor limits per client affect the results."""


@dataclass(frozen=True, slots=True)
class Timed:
    duration_s: float
    ending: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections")
    parser.add_argument("--queued", type=int, default=1000, help="waiting requests, and their limit")
    parser.add_argument("--probes", type=int, default=500)
    parser.add_argument("--refusals", type=int, default=20, help="requests beyond the limit")
    parser.add_argument("--server-fds", type=int, default=1024, help="the server's soft limit of open files")
    args = parser.parse_args(arguments)
    num_fds = args.connections + args.queued + NUM_SPARE_FDS
    folder = prepare_tiny_model_folder(args.model)
    settings = {
        "MAX_WAITING_REQUESTS": args.queued,
        "MAX_NUM_SEQUENCES": 1,
        "MAX_CONNECTIONS": args.connections + args.queued + NUM_SPARE_FDS // 2,
    }
    limit_fds(args.server_fds)
    with start_server(args, folder, settings) as server:
        server.wait_ready()
        limit_fds(num_fds)
        figures = uvloop.run(measure(server, args))
    conclude("idle_connections", args, figures)


async def measure(server: ServerProcess, args: argparse.Namespace) -> list[Figure]:
    with ExitStack() as stack:
        queued = await fill_queue(server.port, args.queued)
        stack.callback(lambda: [task.cancel() for task in queued])
        values = await wait_metrics(
            server.port, lambda values: values["distilgpt2_waiting_sequences"] >= args.queued, 60.0
        )
        rss_bytes = server.rss_bytes()
        opened, failures = await open_idle(server.port, args.connections)
        idle_bytes = server.rss_bytes() - rss_bytes
        for connection in opened:
            stack.enter_context(connection)
        probes = [await time_probe(server.port) for _ in range(args.probes)]
        refusals = [await time_refusal(server.port) for _ in range(args.refusals)]
        num_open = sum(not connection.is_ended for connection in opened)
        num_waiting = int(values["distilgpt2_waiting_sequences"])
    return [
        Figure("idle connections open at the end", f"{num_open}", f"{args.connections}", num_open == args.connections),
        Figure("refused or lost while opening", describe_counts(failures)),
        Figure("memory per idle connection, in the server", f"{idle_bytes / max(1, len(opened)) / 1024:.1f} KiB"),
        Figure("requests waiting", f"{num_waiting}", f"{args.queued}", num_waiting == args.queued),
        *describe_probes(probes),
        *describe_refusals(refusals),
    ]


def describe_probes(probes: Sequence[Timed]) -> list[Figure]:
    durations_s, endings = [probe.duration_s for probe in probes], Counter(probe.ending for probe in probes)
    p99_s = percentile(durations_s, 99)
    are_answers = endings.keys() == {"200"}  # a connection that is cut immediately is not a fast answer
    return [
        Figure("/livez p50", f"{1000 * percentile(durations_s, 50):.1f} ms"),
        Figure(
            "/livez p99",
            f"{1000 * p99_s:.1f} ms",
            f"< {1000 * MAX_PROBE_S:.0f} ms",
            are_answers and p99_s < MAX_PROBE_S,
        ),
        Figure("/livez answers", describe_counts(endings), "200 only", are_answers),
    ]


def describe_refusals(refusals: Sequence[Timed]) -> list[Figure]:
    durations_s, endings = [refusal.duration_s for refusal in refusals], Counter(one.ending for one in refusals)
    median_s = statistics.median(durations_s)
    bound = f"< {1000 * MAX_REFUSAL_S:.0f} ms"
    are_honest = all(re.fullmatch(r"429 with Retry-After [1-9]\d*", ending) for ending in endings)
    return [
        Figure("refusal, median", f"{1000 * median_s:.1f} ms", bound, are_honest and median_s < MAX_REFUSAL_S),
        Figure("refusal, longest", f"{1000 * max(durations_s):.1f} ms"),
        Figure("refusals", describe_counts(endings), "429 with Retry-After", are_honest),
    ]


async def fill_queue(port: int, num_requests: int) -> list[asyncio.Task[Answer]]:
    """Occupy the only slot, then let `num_requests` wait behind it."""
    stream = build_completion(max_tokens=130_000, stream=True)
    first = asyncio.create_task(ask_once(port, stream, timeout_s=600.0))
    await wait_metrics(port, lambda values: values["distilgpt2_running_sequences"] == 1, 30.0)
    request = build_completion(max_tokens=1)
    rest = [
        asyncio.create_task(ask_once(port, request, source=SOURCES[index % len(SOURCES)], timeout_s=600.0))
        for index in range(num_requests)
    ]
    return [first, *rest]


async def open_idle(port: int, num_connections: int) -> tuple[list[Connection], Counter[str]]:
    """Open connections that have got an answer; count the reasons of failures."""
    request = build_get("/livez")
    opened: list[Connection] = []
    failures: Counter[str] = Counter()
    sources = iter([SOURCES[index % len(SOURCES)] for index in range(num_connections)])

    async def open_some() -> None:
        for source in sources:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    connection = await Connection.open(port, source=source)
                    opened.append(connection)
                    answer = await connection.ask(request)
                if answer.ending != "200":
                    failures[answer.ending] += 1
            except OSError as error:
                failures[name_failure(error)] += 1

    await asyncio.gather(*(open_some() for _ in range(OPEN_AT_ONCE)))
    return opened, failures


async def time_probe(port: int) -> Timed:
    """Time a probe from connecting to the last byte."""
    begin_s = time.perf_counter()
    try:
        ending = (await ask_once(port, build_get("/livez"), timeout_s=ANSWER_TIMEOUT_S)).ending
    except OSError as error:
        ending = name_failure(error)
    return Timed(time.perf_counter() - begin_s, ending)


async def time_refusal(port: int) -> Timed:
    """Time a refusal from sending to the answer's header. Only callers with requests in the queue are refused."""
    begin_s = time.perf_counter()
    request = build_completion(max_tokens=1)
    try:
        answer = await ask_once(port, request, source=SOURCES[0], timeout_s=ANSWER_TIMEOUT_S)
    except OSError as error:
        return Timed(time.perf_counter() - begin_s, name_failure(error))
    wait = answer.headers.get("retry-after", "none")
    return Timed(answer.head_s - answer.sent_s, f"{answer.ending} with Retry-After {wait}")


if __name__ == "__main__":
    main()
