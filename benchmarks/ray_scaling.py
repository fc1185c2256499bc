"""Ray Serve on this machine: from one replica to one per core, and the overhead of Ray.

    python -m benchmarks.ray_scaling                       one core for each replica, 32 clients
    python -m benchmarks.ray_scaling --clients 8 --repeats 1

`alone` is `distilgpt2-api serve` with one compute thread, like a replica. The other rows have the same load through
Ray's proxy, the gateway and N replicas. Processor time is that of all server processes, per 1000 tokens.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.owned_process import cpu_s_below
from benchmarks.report import RESULTS, Spread, describe_machine, percentile, print_header, print_table, write_json
from benchmarks.server_process import ServerProcess, free_port
from benchmarks.workload import Workload, run_client

# Set before Ray is imported. The first variable keeps Ray on loopback, despite its name.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

import ray
from ray import serve

from distilgpt2_api.core.config import Precision
from distilgpt2_api.scale_out.ray_serve import app


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """Results of one round. The rate is in completion tokens per second."""

    rate: float
    ttft_p50_s: float
    itl_p50_s: float
    server_cpu_s: float
    """Processor time in seconds per 1000 tokens."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=4, help="requests of each client in a round")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(arguments)
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("Ray Serve", machine)
    results = {"alone": measure_alone(folder, args)}
    for num_replicas in range(1, machine["cores"] + 1):
        results[f"Ray, {num_replicas}"] = measure_replicas(num_replicas, folder, args)
    print_results(args, results)
    write_json("ray", machine, {"arguments": vars(args), "results": results})


def measure_alone(folder: Path, args: argparse.Namespace) -> list[LoadRun]:
    with ServerProcess(
        folder,
        precision=args.precision,
        cache_home=COMPILED,
        settings={"NUM_THREADS": "1"},
        log=RESULTS / "server.log",
    ) as server:
        server.wait_ready()
        return measure(server.port, server.pid, args)


def measure_replicas(num_replicas: int, folder: Path, args: argparse.Namespace) -> list[LoadRun]:
    """Measure on a separate Ray, and stop it."""
    os.environ |= {
        "DISTILGPT2_MODEL": str(folder.absolute()),
        "DISTILGPT2_PRECISION": args.precision,
        "DISTILGPT2_CACHE_HOME": str(COMPILED.absolute()),
        "DISTILGPT2_LOG_LEVEL": "warning",
    }
    port = free_port()
    ray.init(address="local", num_cpus=num_replicas, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"min_replicas": num_replicas, "max_replicas": num_replicas}))
        return measure(port, os.getpid(), args)
    finally:
        serve.shutdown()
        ray.shutdown()


def measure(port: int, pid: int, args: argparse.Namespace) -> list[LoadRun]:
    """Run a warm-up round, in which the kernels prepare for each number of rows, then the measured rounds."""
    return [run_load(port, pid, args) for _ in range(args.repeats + 1)][1:]


def run_load(port: int, pid: int, args: argparse.Namespace) -> LoadRun:
    """`pid`: the process whose children serve; it has waited for no other children."""
    workload = Workload.closed_loop(
        args.clients, num_each=args.requests, num_prompt_tokens=args.prompt_tokens, num_new_tokens=args.new_tokens
    )
    begin_cpu_s = cpu_s_below(pid)
    seen = run_client(port, workload)
    server_cpu_s = cpu_s_below(pid) - begin_cpu_s
    return LoadRun(
        rate=seen.num_tokens / seen.elapsed_s,
        ttft_p50_s=percentile(seen.ttfts_s, 50),
        itl_p50_s=percentile(seen.itls_s, 50),
        server_cpu_s=1000 * server_cpu_s / seen.num_tokens,
    )


def print_results(args: argparse.Namespace, results: dict[str, list[LoadRun]]) -> None:
    alone = Spread.of([run.rate for run in results["alone"]]).median
    rows = [
        [
            name,
            f"{Spread.of([run.rate for run in runs]):.0f}",
            f"{Spread.of([run.rate for run in runs]).median / alone:.2f}",
            f"{Spread.of([1000 * run.ttft_p50_s for run in runs]):.0f}",
            f"{Spread.of([1000 * run.itl_p50_s for run in runs]):.1f}",
            f"{Spread.of([run.server_cpu_s for run in runs]).median:.2f}",
        ]
        for name, runs in results.items()
    ]
    what = f"{args.clients} clients, {args.prompt_tokens}-token prompts, {args.new_tokens} new tokens, streamed"
    print(f"\n{args.precision}, one thread per replica, {what}; median (range) of {args.repeats}\n")
    print_table(["replicas", "tokens/s", "of alone", "TTFT p50, ms", "ITL p50, ms", "server CPU"], rows)


if __name__ == "__main__":
    main()
