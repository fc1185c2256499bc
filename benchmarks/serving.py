"""Streamed completions over HTTP, as clients see them: a separate client process on the same machine, closed loop.

    python -m benchmarks.serving                       DistilGPT-2's shape, int8, at 1, 8 and 32 clients
    python -m benchmarks.serving --clients 32 --repeats 1 --requests 16

TTFT: from sending a request to its first event; ITL: from event to event. Processor time of server and client is per
1000 tokens, because on few cores the client uses a part of the machine. Memory: resident after the load, and
proportional (shared pages by share). Rounds alternate; the output has medians and ranges.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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

from distilgpt2_api.core.config import Precision

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRun:
    """Results of one round. Rates are in completion tokens per second."""

    rate: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    server_cpu_s: float
    """Processor seconds per 1000 tokens, like the next field."""
    client_cpu_s: float
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
    with ServerProcess(
        folder,
        precision=args.precision,
        cache_home=COMPILED,
        settings=settings,
        log=RESULTS / "server.log",
        python=args.server_python,
    ) as server:
        server.wait_ready()
        measurements = {f"{num_clients}": partial(measure, server, args, num_clients) for num_clients in args.clients}
        repeat_interleaved(measurements, 1)  # the kernels prepare for each number of rows
        results = repeat_interleaved(measurements, args.repeats)
    print_results(args, results)
    write_json("serving", machine, {"arguments": vars(args), "results": results})


def measure(server: ServerProcess, args: argparse.Namespace, num_clients: int) -> ServingRun:
    lengths = [f"--prompt-tokens={args.prompt_tokens}", f"--new-tokens={args.new_tokens}"]
    load = [f"--clients={num_clients}", f"--requests={args.requests}", *lengths]
    begin_cpu_s = server.cpu_s()
    command = [sys.executable, "-m", "benchmarks.load_client", str(server.port), *load]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    server_cpu_s = server.cpu_s() - begin_cpu_s
    seen = json.loads(output)
    expected = num_clients * args.requests * args.new_tokens
    if seen["num_tokens"] != expected:
        raise SystemExit(f"got {seen['num_tokens']} tokens instead of {expected}")
    return ServingRun(
        rate=seen["num_tokens"] / seen["elapsed_s"],
        ttft_p50_s=percentile(seen["ttfts_s"], 50),
        ttft_p99_s=percentile(seen["ttfts_s"], 99),
        itl_p50_s=percentile(seen["itls_s"], 50),
        itl_p99_s=percentile(seen["itls_s"], 99),
        server_cpu_s=1000 * server_cpu_s / seen["num_tokens"],
        client_cpu_s=1000 * seen["cpu_s"] / seen["num_tokens"],
        rss_bytes=server.rss_bytes(),
        pss_bytes=server.pss_bytes(),
    )


def print_results(args: argparse.Namespace, results: dict[str, list[ServingRun]]) -> None:
    rows = [
        [
            num_clients,
            f"{Spread.of([run.rate for run in runs]):.0f}",
            f"{Spread.of([1000 * run.ttft_p50_s for run in runs]):.0f}",
            f"{Spread.of([1000 * run.ttft_p99_s for run in runs]):.0f}",
            f"{Spread.of([1000 * run.itl_p50_s for run in runs]):.1f}",
            f"{Spread.of([1000 * run.itl_p99_s for run in runs]):.1f}",
            f"{Spread.of([run.server_cpu_s for run in runs]).median:.2f}",
            f"{Spread.of([run.client_cpu_s for run in runs]).median:.3f}",
            f"{max(run.rss_bytes for run in runs) / MIB:.0f}",
            f"{max(run.pss_bytes for run in runs) / MIB:.0f}",
        ]
        for num_clients, runs in results.items()
    ]
    what = f"{args.prompt_tokens}-token prompts, {args.new_tokens} new tokens, top-k 50, streamed"
    print(f"\n{args.precision}, {what}; median (range) of {args.repeats}; CPU in seconds per 1000 tokens\n")
    header = ["clients", "tokens/s", "TTFT p50, ms", "p99", "ITL p50, ms", "p99", "server CPU", "client CPU"]
    print_table([*header, "RSS, MiB", "PSS, MiB"], rows)


if __name__ == "__main__":
    main()
