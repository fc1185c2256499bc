"""Streamed completions over HTTP, as clients see them: a separate client process on the same machine, closed loop.

    python -m benchmarks.serving                       DistilGPT-2's shape, int8, at 1, 8 and 32 clients
    python -m benchmarks.serving --clients 32 --repeats 1 --requests 16

TTFT: from sending a request to its first event; ITL: from event to event. "of the engine" is the rate relative to the
engine alone, without HTTP, in this process. `/livez` is asked for in runs of its own, with the same load. Processor
time of server and client is per token, because on few cores the client uses a part of the machine; "outside the
kernels" is that of the same server with a runner that only waits (`kernelless_server.py`). Memory: resident after the
load, and proportional (shared pages by share). Rounds alternate; the output has medians and ranges.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import (
    RESULTS,
    Spread,
    describe_machine,
    percentile,
    print_header,
    print_table,
    repeat_interleaved,
    write_json,
)
from benchmarks.server_process import ServerProcess, add_server_python
from benchmarks.timed_engine import Load, TimedEngine
from benchmarks.workload import Workload, client_command, run_client

from distilgpt2_api.core.config import Precision

MIB = 1 << 20
ALONE = COMPILED / "engine"
"""The engine alone has a file to itself: it would share the pages of the server's, and lower the server's PSS."""
PROBE_INTERVAL_S = 0.02
TOP_K = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRun:
    """Results of one round. Rates are in completion tokens per second."""

    rate: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    server_cpu_us: float
    """Processor time per token in microseconds, like the next field."""
    client_cpu_us: float
    rss_bytes: int
    pss_bytes: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=4, help="requests of each client in a round")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--setting", metavar="NAME=VALUE", action="append", default=[], help="a setting, as in MAX_STEP_TOKENS=256"
    )
    add_server_python(parser)
    args = parser.parse_args(arguments)
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("serving", machine)
    settings = dict(setting.split("=", 1) for setting in args.setting)
    with ExitStack() as stack:
        start = partial(
            ServerProcess,
            folder,
            precision=args.precision,
            cache_home=COMPILED,
            settings=settings,
            log=RESULTS / "server.log",
            python=args.server_python,
        )
        server = stack.enter_context(start())
        kernelless = stack.enter_context(start(module="benchmarks.kernelless_server"))
        engine = TimedEngine(folder, precision=args.precision, num_threads=None, cache_folder=ALONE)
        stack.callback(engine.close)
        for each in (server, kernelless):
            each.wait_ready()
        measurements: dict[str, Callable[[], Any]] = {}
        for num_clients in args.clients:
            load = Load(
                num_sequences=num_clients,
                num_prompt_tokens=args.prompt_tokens,
                num_new_tokens=args.new_tokens,
                top_k=TOP_K,
            )
            workload = Workload.closed_loop(
                num_clients,
                num_each=args.requests,
                num_prompt_tokens=args.prompt_tokens,
                num_new_tokens=args.new_tokens,
                top_k=TOP_K,
            )
            measurements[f"served {num_clients}"] = partial(measure, server, workload)
            measurements[f"probed {num_clients}"] = partial(measure_livez, server, workload)
            measurements[f"engine {num_clients}"] = partial(measure_alone, engine, load, num_runs=args.requests)
            measurements[f"kernelless {num_clients}"] = partial(measure, kernelless, workload)
        repeat_interleaved(measurements, 1)  # the kernels prepare for each number of rows
        results = repeat_interleaved(measurements, args.repeats)
    print_results(args, results)
    write_json("serving", machine, {"arguments": vars(args), "results": results})


def measure(server: ServerProcess, workload: Workload) -> ServingRun:
    begin_cpu_s = server.cpu_s()
    seen = run_client(server.port, workload)
    server_cpu_s = server.cpu_s() - begin_cpu_s
    expected = workload.num_requests * workload.num_new_tokens
    if seen.num_tokens != expected:
        raise SystemExit(f"got {seen.num_tokens} tokens instead of {expected}")
    return ServingRun(
        rate=seen.num_tokens / seen.elapsed_s,
        ttft_p50_s=percentile(seen.ttfts_s, 50),
        ttft_p99_s=percentile(seen.ttfts_s, 99),
        itl_p50_s=percentile(seen.itls_s, 50),
        itl_p99_s=percentile(seen.itls_s, 99),
        server_cpu_us=1e6 * server_cpu_s / seen.num_tokens,
        client_cpu_us=1e6 * seen.cpu_s / seen.num_tokens,
        rss_bytes=server.rss_bytes(),
        pss_bytes=server.pss_bytes(),
    )


def measure_livez(server: ServerProcess, workload: Workload) -> list[float]:
    """Seconds of each answer of `/livez`, on one connection, beside the same load."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    times_s = []
    with subprocess.Popen(client_command(server.port, workload), stdout=subprocess.DEVNULL) as client:
        while client.poll() is None:
            begin_s = time.perf_counter()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            times_s.append(time.perf_counter() - begin_s)
            time.sleep(PROBE_INTERVAL_S)
    connection.close()
    if client.returncode:
        raise SystemExit("the load client failed")
    return times_s


def measure_alone(engine: TimedEngine, load: Load, *, num_runs: int) -> float:
    """Tokens/s of the engine, over as many runs as each client sends requests."""
    seconds = sum(load.num_tokens / engine.run(load).engine_rate for _ in range(num_runs))
    return num_runs * load.num_tokens / seconds


def print_results(args: argparse.Namespace, results: dict[str, list[Any]]) -> None:
    what = f"{args.prompt_tokens}-token prompts, {args.new_tokens} new tokens, top-k {TOP_K}, streamed"
    print(f"\n{args.precision}, {what}; median (range) of {args.repeats}\n")
    rates, costs = [], []
    for num_clients in args.clients:
        runs: list[ServingRun] = results[f"served {num_clients}"]
        livez: list[list[float]] = results[f"probed {num_clients}"]
        engine_rates: list[float] = results[f"engine {num_clients}"]
        shares = [100 * run.rate / rate for run, rate in zip(runs, engine_rates, strict=True)]
        others: list[ServingRun] = results[f"kernelless {num_clients}"]
        rates.append(
            [
                num_clients,
                f"{Spread.of([run.rate for run in runs]):.0f}",
                f"{Spread.of(shares):.0f} %",
                f"{Spread.of([1000 * run.ttft_p50_s for run in runs]):.0f}",
                f"{Spread.of([1000 * run.ttft_p99_s for run in runs]):.0f}",
                f"{Spread.of([1000 * run.itl_p50_s for run in runs]):.1f}",
                f"{Spread.of([1000 * run.itl_p99_s for run in runs]):.1f}",
                f"{Spread.of([1000 * percentile(times_s, 50) for times_s in livez]):.1f}",
                f"{Spread.of([1000 * percentile(times_s, 99) for times_s in livez]):.1f}",
            ]
        )
        costs.append(
            [
                num_clients,
                f"{Spread.of([run.server_cpu_us for run in runs]):.0f}",
                f"{Spread.of([run.server_cpu_us for run in others]):.0f}",
                f"{Spread.of([run.client_cpu_us for run in runs]):.0f}",
                f"{max(run.rss_bytes for run in runs) / MIB:.0f}",
                f"{max(run.pss_bytes for run in runs) / MIB:.0f}",
            ]
        )
    latencies = ["TTFT p50, ms", "p99", "ITL p50, ms", "p99", "/livez p50, ms", "p99"]
    print_table(["clients", "tokens/s", "of the engine", *latencies], rates)
    print("Processor time per token in microseconds; memory of master and worker in MiB\n")
    print_table(["clients", "server", "outside the kernels", "client", "RSS", "PSS"], costs)


if __name__ == "__main__":
    main()
