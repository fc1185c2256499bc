"""Prints the rate of the bare forward pass in tokens/s: decode steps of 1, 8, 32 and 64 sequences, no sampling.

    python benchmarks/make_model.py /tmp/random
    python benchmarks/forward.py /tmp/random --precision int8

This is the upper bound of the engine's rate on this machine. It prints the median and the best of the repeats, which
differ on a shared machine. Every block of the KV cache is computed before the timing: the kernel maps memory that was
never written to one page of zeros, which stays in the processor's cache.

--roofs also prints the share of what the machine can do at most, measured in the same run: bytes read per second by the
same threads from memory of the same size, and products of the same instructions with all operands in registers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.architectures.registry import read_model_config, tensor_specs
from distilgpt2_api.model.kernels.draws import DrawBatch, scoring_draws
from distilgpt2_api.model.kernels.forward_pass import ForwardPass
from distilgpt2_api.model.step_inputs import lay_out
from distilgpt2_api.model.weights.compiled_cache import load_weights

NATIVE = Path(__file__).resolve().parent.parent / "native"
COMPILER_PYTHON = NATIVE.parent / ".tools" / "native" / "bin" / "python"
"""The Python that `make` gives the compiler. Without it, this one has to have it, or CXX names one."""
FILL_ROWS = 16
"""Blocks that one step computes: 512 tokens, as in a prefill."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--kernels", default="", help="an instruction set (default: the best that the processor has)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--context", type=int, default=96, help="tokens in the cache of each sequence")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="duration for each number of sequences")
    parser.add_argument("--cache", type=Path, help="folder for compiled weights")
    parser.add_argument("--roofs", action="store_true", help="measure the machine's limits and print shares (int8)")
    args = parser.parse_args()
    blocks_each = -(-args.context // BLOCK_SIZE)
    forward_pass = load_filled(
        args.folder,
        precision=args.precision,
        num_threads=args.threads,
        num_blocks=max(args.sequences) * blocks_each,
        cache_folder=args.cache,
        target=args.kernels,
    )
    print(f"{forward_pass.engine.target}, {args.precision}, {args.threads} threads, {args.context} tokens of context")
    config = read_model_config(args.folder)
    num_products = sum(spec.num_elements for spec in tensor_specs(config).values() if spec.is_matrix)
    cache_bytes = args.context * forward_pass.kv_block_bytes // BLOCK_SIZE
    program = build_roofs(forward_pass.engine.target) if args.roofs else None
    for num_sequences in args.sequences:
        rows = [decode_row(index, args.context, blocks_each) for index in range(num_sequences)]
        roofs = measure_roofs(program, args.threads, num_products) if program else None
        times = time_steps(forward_pass, rows, args.seconds)
        median, best = num_sequences / statistics.median(times), num_sequences / min(times)
        line = f"{num_sequences:3} sequences: {median:6.0f} tokens/s (best {best:.0f})"
        if roofs:
            bytes_per_s = (num_products + num_sequences * cache_bytes) / statistics.median(times)
            products_per_s = num_sequences * num_products / statistics.median(times)
            line += f", {bytes_per_s / roofs[0]:.0%} of {roofs[0] / 1e9:.0f} GB/s"
            line += f", {products_per_s / roofs[1]:.0%} of {roofs[1] / 1e9:.0f} G products/s"
        print(line)


def build_roofs(target: str) -> Path:
    """Compile native/roofs.cpp, each time: a program of an older source would measure other roofs."""
    folder = NATIVE.parent / "build" / "native" / f"roofs-{target}"
    python = COMPILER_PYTHON if COMPILER_PYTHON.exists() else sys.executable
    build = [str(python), str(NATIVE / "build.py"), "--roofs", target, "--out", str(folder)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return folder / "roofs"


def measure_roofs(program: Path, num_threads: int, num_bytes: int) -> tuple[float, float]:
    """Bytes read and products computed per second, at most."""
    measured = subprocess.run(
        [str(program), str(num_threads), str(num_bytes)], check=True, capture_output=True, text=True
    )
    bytes_per_s, products_per_s = measured.stdout.split()
    return float(bytes_per_s), float(products_per_s)


def load_filled(
    folder: Path,
    *,
    precision: Precision,
    num_threads: int,
    num_blocks: int,
    cache_folder: Path | None,
    target: str = "",
) -> ForwardPass:
    """Load the forward pass, with a KV cache of computed keys and values. `target`: an instruction set, or the best."""
    config = read_model_config(folder)
    weights = load_weights(folder, config, precision=precision, cache_folder=cache_folder, report=print)
    forward_pass = ForwardPass(
        config,
        weights,
        precision=precision,
        num_threads=num_threads,
        num_blocks=num_blocks,
        target=target,
    )
    fill_cache(forward_pass, num_blocks, config.vocab_size)
    return forward_pass


def fill_cache(forward_pass: ForwardPass, num_blocks: int, vocab_size: int) -> None:
    """Compute keys and values of all blocks."""
    rows = [fill_row(block_id, vocab_size) for block_id in range(num_blocks)]
    for start in range(0, num_blocks, FILL_ROWS):
        forward_pass.engine.step(lay_out(rows[start : start + FILL_ROWS]), logits_alone([]))


def fill_row(block_id: int, vocab_size: int) -> PlanRow:
    """A prompt of one block: the values of a sequence's later blocks have the same distribution."""
    return PlanRow(
        sequence_id=block_id,
        token_ids=[(7 * block_id + 3 * position) % vocab_size for position in range(BLOCK_SIZE)],
        num_prompt_tokens=BLOCK_SIZE,
        num_computed_tokens=0,
        num_new_tokens=BLOCK_SIZE,
        block_ids=[block_id],
        params=SamplingParams(),
        seed=0,
        is_sampling=False,
    )


def decode_row(index: int, context: int, blocks_each: int) -> PlanRow:
    """A sequence that computes its last token, with all earlier tokens cached."""
    return PlanRow(
        sequence_id=index,
        token_ids=[(7 * index + position) % 256 for position in range(context)],
        num_prompt_tokens=context,
        num_computed_tokens=context - 1,
        num_new_tokens=1,
        block_ids=list(range(index * blocks_each, (index + 1) * blocks_each)),
        params=SamplingParams(),
        seed=0,
        is_sampling=True,
    )


def logits_alone(tokens: Sequence[int]) -> DrawBatch:
    """Draws of the likeliest token behind each of a step's `tokens`: no others cost less beside the logits."""
    undrawn = [-1] * len(tokens)
    return DrawBatch(scoring_draws(tokens, undrawn, undrawn, vocab_size=1))


def time_steps(forward_pass: ForwardPass, rows: list[PlanRow], seconds: float) -> list[float]:
    """Seconds of each step, without the first ones, in which the kernels reserve memory."""
    draws = logits_alone(range(len(rows)))
    for _ in range(3):
        forward_pass.engine.step(lay_out(rows), draws)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        forward_pass.engine.step(lay_out(rows), draws)
        times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()
