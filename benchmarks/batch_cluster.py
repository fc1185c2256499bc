"""The rate of `batch --ray` as a share of `batch`'s rate, with a cluster of this machine only: the overhead of Ray.

    python -m benchmarks.batch_cluster                     DistilGPT-2's shape, int8
    python -m benchmarks.batch_cluster --new-tokens 16

Both commands answer the same files, alternating, as whole processes on all cores: one worker with Ray, one engine
without. Each answers a short and a long file. The rate is that of the long file's additional lines, and `start` is the
rest of the short file's time, so that the start of Ray's workers and the loading of the model do not count as work.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.batch import TOP_K, Load
from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, write_json

# Set before Ray is imported. The first variable keeps Ray on loopback, despite its name.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

import ray

from distilgpt2_api.core.config import Precision

VOCAB_SIZE = 50256


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of one command."""

    rate: float
    """Completion tokens per second."""
    start_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--lines", type=int, nargs=2, default=[128, 640], metavar=("SHORT", "LONG"))
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("batch --ray", machine)
    cores = machine["cores"]
    os.environ |= {
        "DISTILGPT2_MODEL": str(prepare_model_folder(args.model).absolute()),
        "DISTILGPT2_PRECISION": args.precision,
        "DISTILGPT2_CACHE_HOME": str(COMPILED.absolute()),
        "DISTILGPT2_NUM_THREADS": str(cores),
    }
    context = ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    kinds = {"alone": [], "Ray": ["--ray", f"--ray-address={context.address_info['gcs_address']}", "--replicas=1"]}
    rounds: dict[str, list[Round]] = {kind: [] for kind in kinds}
    try:
        for _ in range(args.repeats):
            for kind, options in kinds.items():
                rounds[kind].append(measure(options, args))
    finally:
        ray.shutdown()
    print_results(args, rounds)
    write_json("batch-ray", machine, {"arguments": vars(args), "rounds": rounds})


def measure(options: Sequence[str], args: argparse.Namespace) -> Round:
    """Run the short and the long file, with prompts that no earlier run had."""
    short_s, long_s = (answer(num_lines, options, args) for num_lines in args.lines)
    seconds_per_line = (long_s - short_s) / (args.lines[1] - args.lines[0])
    return Round(rate=args.new_tokens / seconds_per_line, start_s=short_s - args.lines[0] * seconds_per_line)


def answer(num_lines: int, options: Sequence[str], args: argparse.Namespace) -> float:
    """Run the command; return its duration in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        prompts = [random.choices(range(VOCAB_SIZE), k=args.prompt_tokens) for _ in range(num_lines)]
        Load(prompts=prompts, num_new_tokens=args.new_tokens).write(source)
        command = [sys.executable, "-m", "distilgpt2_api", "batch", str(source), "-o", str(output), *options]
        begin_s = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        elapsed_s = time.perf_counter() - begin_s
        num_answers = len(output.read_bytes().splitlines())
        if num_answers != num_lines:
            raise RuntimeError(f"{num_answers} answers to {num_lines} lines")
    return elapsed_s


def print_results(args: argparse.Namespace, rounds: dict[str, list[Round]]) -> None:
    pairs = zip(rounds["alone"], rounds["Ray"], strict=True)
    shares = [100 * through_ray.rate / alone.rate for alone, through_ray in pairs]
    rows = [
        [
            kind,
            f"{Spread.of([one.rate for one in runs]):.0f}",
            f"{Spread.of(shares):.0f} %" if kind == "Ray" else "",
            f"{Spread.of([one.start_s for one in runs]):.1f}",
        ]
        for kind, runs in rounds.items()
    ]
    lines = " and ".join(map(str, args.lines))
    what = f"{lines} lines of {args.prompt_tokens} tokens, {args.new_tokens} new tokens, top-k {TOP_K}"
    print(f"\n{args.precision}, {what}; median (range) of {args.repeats}\n")
    print_table(["", "tokens/s", "of alone", "start, s"], rows)


if __name__ == "__main__":
    main()
