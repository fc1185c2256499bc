"""Twenty thousand requests of every kind: does memory grow, do files stay open?

    python -m benchmarks.reliability.soak
    python -m benchmarks.reliability.soak --requests 2000 --batch 100

Streams, whole answers, several completions, scores, the workshop's route, token counts, probes, invalid requests of
many kinds and clients that disconnect; all prompts are different. After each batch, with no request in flight, it
reads the worker's resident memory and open files. The slope is that of the least-squares line through the samples
after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence

import uvloop
from benchmarks.reliability.http_exchange import Connection, build_completion, build_get, build_post, name_failure
from benchmarks.reliability.trial import (
    MIB,
    STORYTELLER,
    Figure,
    build_parser,
    conclude,
    count_fds,
    describe_counts,
    is_idle,
    read_rss_bytes,
    start_server,
    wait_metrics,
)
from benchmarks.server_process import ServerProcess

MAX_SLOPE_BYTES = 1024
SETTLE_S = 10.0
WORDS = [
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "little",
    "girl",
    "who",
    "saw",
    "the",
    "moon",
    "and",
    "東京",
    "🎉",
]
REQUEST_TIMEOUT_S = 60.0
HANG_UP = "hang-up"

Sample = tuple[int, int, int]
"""Requests so far, resident bytes, open files."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=500, help="requests between two samples")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--warm-up", type=float, default=0.3, help="share of requests without samples")
    args = parser.parse_args(arguments)
    with start_server(args, args.model or STORYTELLER, {"PREFIX_CACHE_BYTES": "16MiB"}) as server:
        server.wait_ready()
        figures, samples = uvloop.run(measure(server, args))
    conclude("soak", args, figures, samples=samples)


async def measure(server: ServerProcess, args: argparse.Namespace) -> tuple[list[Figure], list[Sample]]:
    rng = random.Random(args.seed)
    pid, begin_s = server.worker_pid(), time.perf_counter()
    endings: Counter[str] = Counter()
    samples: list[Sample] = []
    values: dict[str, float] = {}
    for number in range(args.batch, args.requests + 1, args.batch):
        await run_batch(server.port, args.batch, args.clients, rng, endings)
        values = await wait_metrics(server.port, is_idle, SETTLE_S)
        samples.append((number, read_rss_bytes(pid), count_fds(pid)))
    kept = samples[int(args.warm_up * len(samples)) :]
    slope = statistics.linear_regression([one[0] for one in kept], [one[1] for one in kept]).slope
    num_fds = [one[2] for one in kept]
    failures = {name: count for name, count in endings.items() if not is_expected(name)}
    growth = max(num_fds) - min(num_fds)
    return [
        Figure("requests", f"{endings.total()} in {time.perf_counter() - begin_s:.0f} s", f"{args.requests}"),
        Figure("endings", describe_counts(endings), "none by failure", not failures),
        Figure("resident memory, first and last", f"{samples[0][1] / MIB:.1f}, {samples[-1][1] / MIB:.1f} MiB"),
        Figure(
            "slope after warm-up", f"{slope:.0f} B/request", f"< {MAX_SLOPE_BYTES} B/request", slope < MAX_SLOPE_BYTES
        ),
        Figure("open files after warm-up", f"{min(num_fds)} to {max(num_fds)}", "flat", growth <= 1),
        Figure("idle at the end", str(is_idle(values)), "True", is_idle(values)),
    ], samples


def is_expected(ending: str) -> bool:
    return not ending.startswith(("5", "closed", "cut", "no answer", "ended", "refused", "error"))


async def run_batch(port: int, num_requests: int, num_clients: int, rng: random.Random, endings: Counter[str]) -> None:
    """Each client sends the next request when its last has ended; a connection serves a few requests."""
    remaining = iter(range(num_requests))

    async def run_client() -> None:
        connection: Connection | None = None
        for _ in remaining:
            if connection is None or connection.is_ended or rng.random() < 0.2:
                if connection is not None:
                    connection.close()
                connection = await Connection.open(port)
            ending = await run_request(connection, rng)
            endings[ending] += 1
            if ending == HANG_UP or not is_expected(ending):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(num_clients):
            tasks.create_task(run_client())


async def run_request(connection: Connection, rng: random.Random) -> str:
    request, patience_s = draw_request(rng)
    try:
        async with asyncio.timeout(patience_s or REQUEST_TIMEOUT_S):
            return (await connection.ask(request)).ending
    except TimeoutError as error:
        return HANG_UP if patience_s else name_failure(error)
    except OSError as error:
        return name_failure(error)


def draw_request(rng: random.Random) -> tuple[bytes, float | None]:
    """A random request, and the seconds after which its client disconnects, or None."""
    prompt = " ".join(rng.choices(WORDS, k=rng.choice([3, 20, 120]))) + f" {rng.randrange(10**9)}"
    seed, few = rng.randrange(1 << 31), rng.choice([1, 4, 16])
    kinds = [
        build_completion(prompt, max_tokens=few, seed=seed, stream=True),
        build_completion(prompt, max_tokens=few, seed=seed),
        build_completion(prompt, max_tokens=few, n=3, logprobs=2, stop=["zz"], stream=seed % 2 == 0),
        build_completion(prompt, max_tokens=0, echo=True, logprobs=1),
        build_get(f"/{seed}?max_new_tokens=4&num_return_sequences=2"),
        build_post("/generate", {"inputs": prompt, "parameters": {"max_new_tokens": few, "details": True}}),
        build_post("/tokenize", {"prompt": prompt}),
        build_get(rng.choice(["/livez", "/readyz", "/metrics", "/v1/models", f"/nowhere/{seed}/v1?x"])),
        build_completion("", max_tokens=few),
        build_completion(prompt, max_tokens=100_000),
        build_post("/v1/completions", {"prompt": prompt, f"unknown_{seed}": 1}),
        build_post("/v1/completions", {"prompt": {"a": seed}}),
    ]
    if rng.random() < 0.1:
        return build_completion(prompt, max_tokens=200, stream=seed % 2 == 0), 10 ** rng.uniform(-3, -1)
    return rng.choice(kinds), None


if __name__ == "__main__":
    main()
