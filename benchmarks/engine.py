"""Tokens per second of the engine alone, compared with its forward pass, and the parts of a step's time.

    python -m benchmarks.engine                                     DistilGPT-2's shape, int8, 1 to 64 sequences
    python -m benchmarks.engine --with-transformers .venv/bin/python     and transformers in float32, alternating

Engine: scheduling, forward pass, sampling and text of sequences that all start at once; the time includes prefill.
Forward pass: only the forward passes of the same steps, without draws, directly afterwards. Measurements alternate; the
output has medians and ranges. On a shared machine, compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, repeat_interleaved, write_json
from benchmarks.timed_engine import PARTS, EngineRun, Load, TimedEngine

from distilgpt2_api.core.config import Precision

TRANSFORMERS_MAX_SEQUENCES = 32
"""More sequences take a minute per run, and show nothing new."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=50, help="0: the whole distribution")
    parser.add_argument("--threads", type=int, help="default: as in `serve`")
    parser.add_argument("--kernels", default="", help="an instruction set (default: the best that the processor has)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--with-transformers", metavar="PYTHON", help="a Python that has torch and transformers")
    args = parser.parse_args(arguments)
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("engine", machine)
    engine = TimedEngine(
        folder, precision=args.precision, num_threads=args.threads, cache_folder=COMPILED, kernels=args.kernels
    )
    loads = {
        num_sequences: Load(
            num_sequences=num_sequences,
            num_prompt_tokens=args.prompt_tokens,
            num_new_tokens=args.new_tokens,
            top_k=args.top_k,
        )
        for num_sequences in args.sequences
    }
    measurements: dict[str, Callable[[], Any]] = {}
    baseline = TransformersProcess(args, folder) if args.with_transformers else None
    for num_sequences, load in loads.items():
        engine.run(load)  # the kernels prepare for each number of rows
        measurements[f"ours {num_sequences}"] = partial(engine.run, load)
        if baseline is not None and num_sequences <= TRANSFORMERS_MAX_SEQUENCES:
            measurements[f"transformers {num_sequences}"] = partial(baseline.measure, num_sequences)
    results = repeat_interleaved(measurements, args.repeats)
    if baseline is not None:
        baseline.close()
    engine.close()
    print_rates(args, results)
    print_parts(args, results)
    write_json("engine", machine, {"arguments": vars(args), "results": results})


def print_rates(args: argparse.Namespace, results: dict[str, list[Any]]) -> None:
    header = ["sequences", "engine, tokens/s", "forward pass alone", "share"]
    if args.with_transformers:
        header += ["transformers fp32", "ratio"]
    rows = []
    for num_sequences in args.sequences:
        runs: list[EngineRun] = results[f"ours {num_sequences}"]
        row = [
            f"{num_sequences}",
            f"{Spread.of([run.engine_rate for run in runs]):.0f}",
            f"{Spread.of([run.forward_rate for run in runs]):.0f}",
            f"{Spread.of([100 * run.share_of_forward for run in runs]):.0f} %",
        ]
        if args.with_transformers:
            baseline = results.get(f"transformers {num_sequences}")
            ratios = [ours.engine_rate / theirs for ours, theirs in zip(runs, baseline or (), strict=False)]
            row += [f"{Spread.of(baseline):.0f}", f"{Spread.of(ratios):.1f}"] if baseline else ["-", "-"]
        rows.append(row)
    what = f"{args.prompt_tokens}-token prompts, {args.new_tokens} new tokens, top-k {args.top_k}"
    print(f"\n{args.precision}, {what}; median (range) of {args.repeats}\n")
    print_table(header, rows)


def print_parts(args: argparse.Namespace, results: dict[str, list[Any]]) -> None:
    """Print the parts of the run with the median rate, which add up to its step."""
    print("Milliseconds of an average step; kernels are forward pass and draws\n")
    rows = []
    for num_sequences in args.sequences:
        runs = sorted(results[f"ours {num_sequences}"], key=lambda run: run.engine_rate)
        parts = runs[len(runs) // 2].step_parts_ms
        python_ms = sum(parts.values()) - parts["kernels"]
        rows.append([num_sequences, *(f"{ms:.3f}" for ms in parts.values()), f"{python_ms:.3f}"])
    print_table(["sequences", *PARTS, "all but kernels"], rows)


class TransformersProcess:
    """Owns a process of `transformers_baseline.py` that measures on request."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        program = Path(__file__).with_name("transformers_baseline.py")
        lengths = [f"--prompt-tokens={args.prompt_tokens}", f"--new-tokens={args.new_tokens}"]
        command = [args.with_transformers, str(program), str(folder), "--serve", *lengths]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def measure(self, batch: int) -> float:
        """Measure one batch size; return tokens per second."""
        assert self._process.stdin is not None
        print(batch, file=self._process.stdin, flush=True)
        return float(self._read()["tokens_per_s"])

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"transformers_baseline.py ended with status {self._process.wait()}")
        return json.loads(line)


if __name__ == "__main__":
    main()
