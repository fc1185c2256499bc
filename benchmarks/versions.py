"""Ratios of this checkout's engine to another checkout's, alternating: decode, long contexts and prefill.

    git worktree add ../before v1.4.0 && make -C ../before .venv/installed-dev
    python -m benchmarks.versions ../before                 what the changes since then gain
    python -m benchmarks.versions ../before --beside 1      the same beside a process that never pauses

A checkout of the engine on OpenVINO can be held to an instruction set by a variable of its library, and this one by an
option; the variable has no effect here:

    ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.versions ../openvino --kernels avx2

Each checkout runs its own `benchmarks.engine` in its own environment, on the same model folder, one after the other in
each round. Prefill is a load of one new token; a long context is the difference between two loads with the same
prompts, so that its prefill does not count. The output has the median and the range of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.model_folder import prepare_model_folder
from benchmarks.owned_process import OwnedProcess
from benchmarks.report import (
    WRITTEN,
    Spread,
    describe_machine,
    print_header,
    print_table,
    repeat_interleaved,
    write_json,
)

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load of `benchmarks.engine`, or the difference between two loads with the same prompts."""

    name: str
    num_sequences: int
    num_prompt_tokens: int
    num_new_tokens: int
    is_without_prefill: bool = False


CASES = (
    *(
        Case(name=f"{count} sequences", num_sequences=count, num_prompt_tokens=32, num_new_tokens=128)
        for count in (1, 8, 32, 64)
    ),
    Case(
        name="32 sequences, 900 tokens of context",
        num_sequences=32,
        num_prompt_tokens=900,
        num_new_tokens=33,
        is_without_prefill=True,
    ),
    Case(name="prefill of 256 tokens", num_sequences=8, num_prompt_tokens=256, num_new_tokens=1),
    Case(name="prefill of 900 tokens", num_sequences=4, num_prompt_tokens=900, num_new_tokens=1),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", default="int8")
    parser.add_argument(
        "--kernels", default="", help="the instruction set here (default: the best that the processor has)"
    )
    lines = range(1, len(CASES) + 1)
    parser.add_argument(
        "--lines", type=int, nargs="+", choices=lines, default=lines, help="of the table (default: all)"
    )
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="processes that compute all the while")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    args = parser.parse_args(arguments)
    folder = prepare_model_folder(args.model).resolve()
    machine = describe_machine()
    print_header("versions", machine)
    cases = [CASES[line - 1] for line in args.lines]
    options = {"--model": str(folder), "--precision": args.precision}
    sides = {
        "there": partial(measure_seconds, args.checkout.resolve(), options),
        "here": partial(measure_seconds, HERE, options | {"--kernels": args.kernels}),
    }
    measurements = {f"{case.name}, {side}": partial(measure, case) for case in cases for side, measure in sides.items()}
    with ExitStack() as stack:
        for _ in range(args.beside):
            stack.enter_context(OwnedProcess([sys.executable, "-c", "while True: pass"]))
        results = repeat_interleaved(measurements, args.repeats)
    rows = []
    for case in cases:
        there, here = results[f"{case.name}, there"], results[f"{case.name}, here"]
        ratios = [slower / faster for slower, faster in zip(there, here, strict=True)]
        num_tokens = case.num_sequences * count_tokens(case)
        rates = [Spread.of([num_tokens / seconds for seconds in side]) for side in (there, here)]
        rows.append([case.name, *(f"{rate:.0f}" for rate in rates), f"{Spread.of(ratios):.2f}"])
    beside = f", beside {args.beside} busy processes" if args.beside else ""
    print(f"\n{args.precision}{beside}; tokens/s, median (range) of {args.repeats} rounds\n")
    print_table(["", "there", "here", "here / there"], rows)
    write_json("versions", machine, {"arguments": vars(args) | {"lines": list(args.lines)}, "seconds": results})


def count_tokens(case: Case) -> int:
    """The tokens of each sequence that the measured seconds pay for."""
    if case.is_without_prefill:
        return case.num_new_tokens - 1
    return case.num_new_tokens if case.num_new_tokens > 1 else case.num_prompt_tokens


def measure_seconds(checkout: Path, options: Mapping[str, str], case: Case) -> float:
    """Seconds of the case in the checkout's own engine."""
    run = partial(run_engine, checkout, options, case)
    if case.is_without_prefill:
        return run(num_new_tokens=case.num_new_tokens) - run(num_new_tokens=1)
    return run(num_new_tokens=case.num_new_tokens)


def run_engine(checkout: Path, options: Mapping[str, str], case: Case, *, num_new_tokens: int) -> float:
    """The least seconds of three runs of a load. Raises subprocess.CalledProcessError."""
    load = {
        "--sequences": case.num_sequences,
        "--prompt-tokens": case.num_prompt_tokens,
        "--new-tokens": num_new_tokens,
        "--repeats": 3,
    }
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "benchmarks.engine"]
    command += [str(part) for option in {**options, **load}.items() for part in option]
    output = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "src")])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    path = next(line.removeprefix(WRITTEN) for line in output.splitlines() if line.startswith(WRITTEN))
    runs = json.loads(Path(path).read_text())["results"][f"ours {case.num_sequences}"]
    return case.num_sequences * num_new_tokens / max(float(run["engine_rate"]) for run in runs)


if __name__ == "__main__":
    main()
