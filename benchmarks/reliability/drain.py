"""SIGTERM while many streams run, many times: does every stream end properly, and the process in time?

    python -m benchmarks.reliability.drain
    python -m benchmarks.reliability.drain --times 3 --streams 8 --setting DRAIN_S=1

With a tiny model, half of the streams are short enough to finish within the drain; the others end with the error event.
Meanwhile other clients request readiness and a completion, each on a new connection and on one that was open before.
They must get 503 or a refused connection; a request that gets a connection but no answer is lost.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop
from benchmarks.model_folder import prepare_tiny_model_folder
from benchmarks.reliability.http_exchange import (
    ERROR,
    FINISH,
    Connection,
    build_completion,
    build_get,
    name_failure,
    try_once,
)
from benchmarks.reliability.trial import (
    Figure,
    build_parser,
    conclude,
    describe_counts,
    start_server,
)
from benchmarks.server_process import ServerProcess

from distilgpt2_api.settings import Settings

MARGIN_S = 1.0
STREAM_TIMEOUT_S = 120.0
MAX_TURN_S = 0.5
"""Limit for the signal's delay from Gunicorn's master to a worker's event loop that is busy with streams."""
PROBE_EVERY_S = 0.1
IN_TIME = "200 before readiness changed"
SHORT_TOKENS, LONG_TOKENS = 300, 30_000
READINESS = build_get("/readyz")
COMPLETION = build_completion(max_tokens=1)


@dataclass(slots=True)
class Seen:
    """Results of all rounds. Mutable, owned by the program."""

    streams: Counter[str] = field(default_factory=Counter)
    others: dict[str, Counter[str]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    exits_s: list[float] = field(default_factory=list)
    turned_s: list[float] = field(default_factory=list)
    """Seconds from the signal to the last readiness of 200."""

    def count_other(self, what: str, ending: str, *, has_turned: bool) -> None:
        ending = IN_TIME if ending == "200" and not has_turned else ending
        self.others.setdefault(what, Counter())[ending] += 1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--streams", type=int, default=32)
    args = parser.parse_args(arguments)
    given = dict(setting.split("=", 1) for setting in args.setting)
    drain_s = float(given.get("DRAIN_S", Settings.model_fields["drain_s"].default))
    seen = Seen()
    folder = prepare_tiny_model_folder(args.model)
    for _ in range(args.times):
        with start_server(args, folder, {}) as server:
            server.wait_ready()
            uvloop.run(run_round(server, args.streams, drain_s, seen))
    proper = seen.streams[FINISH] + seen.streams[ERROR]
    num_streams = args.times * args.streams
    answers: Counter[str] = sum(seen.others.values(), Counter())
    are_told = answers.keys() <= {"503", "refused", IN_TIME}
    longest_s, turned_s = max(seen.exits_s), max(seen.turned_s)
    figures = [
        Figure("ends of streams", describe_counts(seen.streams), f"{num_streams} proper", proper == num_streams),
        Figure("exit statuses", describe_counts(seen.statuses), f"0 {args.times}", seen.statuses == {"0": args.times}),
        Figure(
            "longest time to the exit",
            f"{longest_s:.2f} s",
            f"< {drain_s + MARGIN_S:g} s",
            longest_s < drain_s + MARGIN_S,
        ),
        Figure(
            "last readiness of 200",
            f"{1000 * turned_s:.0f} ms at most",
            f"< {1000 * MAX_TURN_S:.0f} ms",
            turned_s < MAX_TURN_S,
        ),
        *(Figure(what, describe_counts(counts)) for what, counts in sorted(seen.others.items())),
        Figure("other requests", describe_counts(answers), "503 or refused", are_told),
    ]
    conclude("drain", args, figures)


async def run_round(server: ServerProcess, num_streams: int, drain_s: float, seen: Seen) -> None:
    have_begun = [asyncio.Event() for _ in range(num_streams)]
    streams = [asyncio.create_task(run_stream(server.port, index, begun.set)) for index, begun in enumerate(have_begun)]
    async with asyncio.timeout(30.0):
        await asyncio.gather(*(begun.wait() for begun in have_begun))
    kept = {
        "readiness, kept alive": await Connection.open(server.port),
        "completion, kept alive": await Connection.open(server.port),
    }
    for connection in kept.values():
        await connection.ask(READINESS)
    server.send_signal(signal.SIGTERM)
    signalled_s = time.perf_counter()
    exit_status = asyncio.create_task(asyncio.to_thread(server.wait_exit, drain_s + 30.0))
    turned_s = await watch(server.port, exit_status, seen, signalled_s, kept)
    seen.statuses[str(await exit_status)] += 1
    seen.exits_s.append(time.perf_counter() - signalled_s)
    seen.turned_s.append(turned_s)
    seen.streams.update(await asyncio.gather(*streams))
    for connection in kept.values():
        connection.close()


async def run_stream(port: int, index: int, on_head: Callable[[], object]) -> str:
    max_tokens = SHORT_TOKENS if index % 2 else LONG_TOKENS
    request = build_completion(f"stream {index}", max_tokens=max_tokens, stream=True, seed=index)
    try:
        async with asyncio.timeout(STREAM_TIMEOUT_S):
            with await Connection.open(port) as connection:
                return (await connection.ask(request, on_head=on_head)).ending
    except OSError as error:
        return name_failure(error)


async def watch(
    port: int, exit_status: asyncio.Task[int], seen: Seen, signalled_s: float, kept: dict[str, Connection]
) -> float:
    """Send requests until the process has ended; return the time until the last readiness of 200."""
    turned_s, has_turned = 0.0, False
    while not exit_status.done():
        ending = await try_once(port, READINESS, timeout_s=5.0)
        seen.count_other("readiness, new", ending, has_turned=has_turned)
        if ending == "200":
            turned_s = time.perf_counter() - signalled_s
        else:
            has_turned = True
        ending = await try_once(port, COMPLETION, timeout_s=5.0)
        seen.count_other("completion, new", ending, has_turned=has_turned)
        for what, connection in kept.items():
            if connection.is_ended:
                continue
            try:
                async with asyncio.timeout(5.0):
                    answer = await connection.ask(READINESS if what.startswith("readiness") else COMPLETION)
                seen.count_other(what, answer.ending, has_turned=has_turned)
            except OSError as error:
                seen.count_other(what, name_failure(error), has_turned=has_turned)
                connection.close()
        await asyncio.wait([exit_status], timeout=PROBE_EVERY_S)
    return turned_s


if __name__ == "__main__":
    main()
