"""Checks in a minute whether a change cost speed: ratios to a reference kernel in the same run, with committed bounds.

    python -m benchmarks.check

All figures are ratios: the engine's rates to those of the bare matrix products of the same sizes
(`reference_kernel.py`), drafts to the same engine without drafts, sampling to NumPy's argpartition, the service to the
engine, the start to a bare import of the required libraries. Rounds run one after the other, and the best of them
counts. The bounds in `bounds.json` are a third below the results on a busy machine: a figure below its bound means that
speed was lost, or that other programs use most of the machine. The exit status is then 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.bounds import check_bounds, read_bounds
from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.owned_process import exit_on_sigterm
from benchmarks.peers.running import HttpPeer
from benchmarks.reference_kernel import ReferenceKernel
from benchmarks.report import (
    RESULTS,
    Spread,
    describe_machine,
    print_header,
    print_table,
    repeat_interleaved,
    write_json,
)
from benchmarks.sampling import KINDS, make_logits, open_kernels, partial_draw
from benchmarks.sampling import measure as measure_median_ms
from benchmarks.server_process import ServerProcess
from benchmarks.timed_engine import MAX_STEP_TOKENS, Load, TimedEngine
from benchmarks.workload import Workload

from distilgpt2_api.core.config import Precision
from distilgpt2_api.model.architectures.registry import read_model_config

NEEDED = "import fastapi, gunicorn, numpy, tokenizers, uvicorn"
PREFILL_TOKENS = 1000
NUM_SERVED = 8


class Measurer:
    """Owns an engine, the reference kernel and draws."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._engine = TimedEngine(folder, precision=Precision.INT8, num_threads=None, cache_folder=COMPILED)
        self._reference = ReferenceKernel(read_model_config(folder))
        self._logits = make_logits(32)
        self._draw = partial_draw(open_kernels(1), self._logits, [KINDS["top-k 50"]])

    def close(self) -> None:
        self._engine.close()

    def decode(self, num_sequences: int) -> float:
        return self._engine_rate(num_sequences) / self._reference.rows_per_s(num_sequences)

    def draft(self) -> float:
        """Speed-up of one sequence that repeats itself."""
        load = Load(num_sequences=1, num_prompt_tokens=32, num_new_tokens=256, top_k=1)
        return self._engine.run(load).engine_rate / self._engine_rate(1)

    def prefill(self) -> float:
        load = Load(num_sequences=4, num_prompt_tokens=PREFILL_TOKENS, num_new_tokens=1, top_k=50)
        rate = self._engine.run(load).engine_rate * PREFILL_TOKENS
        return rate / self._reference.rows_per_s(MAX_STEP_TOKENS, has_head=False)

    def draw(self) -> float:
        """Speed of sampling, relative to the partition at the start of a plain top-k."""
        ours_ms = measure_median_ms(self._draw, 20)
        return measure_median_ms(partial(np.argpartition, self._logits, -50, axis=1), 10) / ours_ms

    def serve(self, peer: HttpPeer) -> float:
        workload = Workload(num_clients=NUM_SERVED, num_requests=2 * NUM_SERVED, num_new_tokens=64)
        return peer.measure(workload).rate / self._engine_rate(NUM_SERVED)

    def start(self, cache_home: Path) -> float:
        """Time of a process that only imports, divided by our time to the first token."""
        server = ServerProcess(self.folder, precision=Precision.INT8, cache_home=cache_home)
        peer = HttpPeer(server, server.port, {})
        peer.stop()
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", NEEDED], check=True)
        return (time.perf_counter() - begin_s) / peer.start_s

    def _engine_rate(self, num_sequences: int) -> float:
        load = Load(num_sequences=num_sequences, num_prompt_tokens=32, num_new_tokens=64, top_k=50)
        return self._engine.run(load).engine_rate


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--repeats", type=int, default=4, help="the best counts")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    bounds = read_bounds()
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("check", machine)
    with tempfile.TemporaryDirectory() as cache_home:
        runs = measure(Measurer(folder), Path(cache_home), args.repeats)
    verdicts = check_bounds({name: max(values) for name, values in runs.items()}, bounds)
    print(f"\nThe best of {args.repeats} rounds counts\n")
    print_table(
        ["ratio", "best", "median (range)", "bound", ""],
        [
            [
                one.name,
                f"{one.value:.2f}",
                f"{Spread.of(runs[one.name]):.2f}",
                f">= {one.bound:g}",
                word_for(one.is_kept),
            ]
            for one in verdicts
        ],
    )
    write_json("check", machine, {"arguments": vars(args), "results": runs})
    sys.exit(not all(one.is_kept for one in verdicts))


def measure(measurer: Measurer, cache_home: Path, num_repeats: int) -> dict[str, list[float]]:
    """All results of each figure, keyed by the bounds' names."""
    server = ServerProcess(measurer.folder, precision=Precision.INT8, cache_home=cache_home, log=RESULTS / "server.log")
    peer = HttpPeer(server, server.port, {})
    measurements: dict[str, Callable[[], float]] = {
        "decode, 1 sequence / its matrix products": partial(measurer.decode, 1),
        "decode, 32 sequences / their matrix products": partial(measurer.decode, 32),
        "accepted drafts / one token a step": measurer.draft,
        "prefill / its matrix products": measurer.prefill,
        "sampling 32 tokens, times argpartition": measurer.draw,
        "streams of 8 clients / the engine alone": partial(measurer.serve, peer),
        "bare imports / start to first token": partial(measurer.start, cache_home),
    }
    try:
        repeat_interleaved(measurements, 1)  # the kernels prepare for each number of rows, and caches fill
        return repeat_interleaved(measurements, num_repeats)
    finally:
        peer.stop()
        measurer.close()


def word_for(is_kept: bool) -> str:
    return "pass" if is_kept else "FAIL"


if __name__ == "__main__":
    main()
