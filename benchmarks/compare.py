"""Compares our service with every installed peer (`make peers`): one model folder, the same loads, alternating.

    python -m benchmarks.compare                                    all loads, three times: an hour on two cores
    python -m benchmarks.compare --peers int8 genai --clients 1 32 --rates --repeats 1
    python -m benchmarks.compare --report benchmarks/results/compare-….json     the tables and plots of a past run

Closed loop: N clients, each of which sends its next request when the last has ended; prompts of 32 tokens, 128 new
tokens, and again for one number of clients with prompts of 16 to 512 tokens. Open loop: requests of those mixed
lengths, 64 new tokens each, arrive at random with the same rate for all. Sampling is top-k 50, and no text ends before
its length. One lean client process sends requests to servers over HTTP; its share of CPU time is reported. Peers
without a server are called in their own process, and have no such cost.

Prints tables in markdown, and writes JSON and one plot for each kind of loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.compare_report import describe_results, draw_closed_loop, draw_open_loop, print_results
from benchmarks.model_folder import prepare_model_folder
from benchmarks.owned_process import exit_on_sigterm
from benchmarks.peers.kinds import (
    DEFAULT_PEERS,
    LOGS,
    MAX_NUM_SEQUENCES,
    TOOLS,
    NotInstalledError,
    PeerKind,
    peer_kinds,
)
from benchmarks.peers.running import PeerRun, RunningPeer
from benchmarks.report import RESULTS, describe_machine, print_header, repeat_interleaved, write_json
from benchmarks.workload import Workload

MIXED = {"min_prompt_tokens": 16, "max_prompt_tokens": 512}
OPEN_NEW_TOKENS = 64


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument(
        "--tools", type=Path, default=TOOLS, help="folder with the environments service, peers, torch and vllm"
    )
    parser.add_argument("--peers", nargs="+", choices=peer_kinds(TOOLS), default=DEFAULT_PEERS, metavar="PEER")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32, 64], help="clients in the closed loops")
    parser.add_argument("--mixed-clients", type=int, nargs="*", default=[32], help="in closed loops of mixed lengths")
    parser.add_argument("--rates", type=float, nargs="*", default=[4.0, 12.0], help="requests/s in open loops")
    parser.add_argument("--requests", type=int, default=2, help="per client; a single one sends twice as many")
    parser.add_argument("--open-seconds", type=float, default=10.0, help="how long requests arrive")
    parser.add_argument("--starts", type=int, default=2, help="per peer; it stays running after the last one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plots")
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing: print a past run")
    args = parser.parse_args(arguments)
    if args.report is not None:
        report(json.loads(args.report.read_text()), args.plots)
        return
    exit_on_sigterm()
    RESULTS.mkdir(exist_ok=True)
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("compare", machine)
    loads = build_workloads(args)
    kinds = {name: kind for name, kind in peer_kinds(args.tools).items() if name in args.peers}
    peers: dict[str, RunningPeer] = {}
    try:
        starts_s, missing = start_all(kinds, peers, folder, args.starts)
        measurements = {
            (load, name): partial(measure, peer, name, load, workload)
            for load, workload in loads.items()
            for name, peer in peers.items()
        }
        warm_up(peers, loads)
        results = repeat_interleaved({json.dumps(key): value for key, value in measurements.items()}, args.repeats)
        runs = keep_whole(results, missing)
        versions = {name: dict(peer.versions) for name, peer in peers.items()}
    finally:
        for peer in peers.values():
            peer.stop()
    seen = describe_results(
        kinds={name: {"title": kind.title, "how": kind.how} for name, kind in kinds.items()},
        loads={name: asdict(workload) for name, workload in loads.items()},
        runs=runs,
        starts_s=starts_s,
        missing=missing,
        versions=versions,
    )
    report({"machine": machine, **seen}, args.plots)
    write_json("compare", machine, {"arguments": vars(args), **seen})


def build_workloads(args: argparse.Namespace) -> dict[str, Workload]:
    """Workloads by name, each with its own seed."""
    loads: dict[str, Workload] = {}
    for num_clients in args.clients:
        num_each = args.requests * (2 if num_clients == 1 else 1)
        loads[f"{num_clients} clients"] = Workload(num_clients=num_clients, num_requests=num_clients * num_each, seed=1)
    for num_clients in args.mixed_clients:
        loads[f"{num_clients} clients, mixed prompts"] = Workload(
            num_clients=num_clients, num_requests=num_clients * args.requests, **MIXED, seed=2
        )
    for rate in args.rates:
        loads[f"{rate:g} requests/s"] = Workload(
            num_clients=MAX_NUM_SEQUENCES,
            num_requests=round(rate * args.open_seconds),
            rate=rate,
            num_new_tokens=OPEN_NEW_TOKENS,
            **MIXED,
            seed=3,
        )
    return loads


def start_all(
    kinds: Mapping[str, PeerKind], peers: dict[str, RunningPeer], folder: Path, num_starts: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Start all peers, alternating, and fill `peers`; return the seconds of each start, and why others are missing."""
    starts_s: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    formats = RESULTS / "models" / f"{folder.resolve().name}-for-peers"
    for index in range(1 + num_starts):  # the first start has cold caches, and writes the peers' formats
        for name, kind in kinds.items():
            if name in missing:
                continue
            try:
                peer = kind.start(folder, formats)
            except (NotInstalledError, RuntimeError) as error:
                missing[name] = f"{error} (see {LOGS})" if isinstance(error, RuntimeError) else str(error)
                continue
            print(f"{kind.title}: first token after {peer.start_s:.2f} s", flush=True)
            if index:
                starts_s.setdefault(name, []).append(peer.start_s)
            if index == num_starts:
                peers[name] = peer
            else:
                peer.stop()
    return starts_s, missing


def warm_up(peers: Mapping[str, RunningPeer], loads: Mapping[str, Workload]) -> None:
    """Generate a few tokens at each number of clients: the kernels prepare for each number of rows."""
    for workload in loads.values():
        if workload.rate is None:
            short = Workload(**{**asdict(workload), "num_new_tokens": 8, "seed": 0})
            for name, peer in peers.items():
                measure(peer, name, "warm-up", short)


def measure(peer: RunningPeer, name: str, load: str, workload: Workload) -> PeerRun | None:
    """Measure one peer; return None if it fails, so that the other peers' results are not lost."""
    try:
        run = peer.measure(workload)
    except (RuntimeError, subprocess.CalledProcessError, BrokenPipeError) as error:
        print(f"{load}: {name} failed: {error}", flush=True)
        return None
    print(f"{load}: {name} {run.rate:.0f} tokens/s", flush=True)
    return run


def keep_whole(
    results: Mapping[str, Sequence[PeerRun | None]], missing: dict[str, str]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Runs by load and peer that succeeded every time; `missing` gets the others."""
    runs = {}
    for key, each in results.items():
        load, name = json.loads(key)
        whole = [asdict(run) for run in each if run is not None]
        if len(whole) == len(each):
            runs[load, name] = whole
        else:
            missing[name] = f"it failed under {load} (see {LOGS})"
    return runs


def report(seen: Mapping[str, Any], plots: Path) -> None:
    print_results(seen)
    plots.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
        "compare-clients.svg": draw_closed_loop,
        "compare-arrivals.svg": draw_open_loop,
    }
    for name, draw in drawings.items():
        if (drawing := draw(seen)) is not None:
            (plots / name).write_text(drawing, encoding="utf-8")
            print(f"written: {plots / name}")


if __name__ == "__main__":
    main()
