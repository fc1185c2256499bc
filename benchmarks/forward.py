"""Prints the raw forward pass in tokens/s: decode steps of 1, 8, 32 and 64 sequences, no sampling.

    python benchmarks/make_model.py /tmp/random
    python benchmarks/forward.py /tmp/random --precision int8

The upper bound of what the engine can do on this machine. The median of the repeats, and the best of them: on a
shared machine the two drift apart. Every block of the KV cache is computed before anything is timed: memory that was
never written is one page of zeros of the kernel's, which stays in the processor's cache however much of it is read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.kernels.forward_pass import ForwardPass
from distilgpt2_api.model.kernels.gpt2_graph import build_graph
from distilgpt2_api.model.step_inputs import lay_out
from distilgpt2_api.model.weights.compiled_cache import load_weights

FILL_ROWS = 16
"""Blocks that one step computes: 512 tokens, as a prefill has."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--context", type=int, default=96, help="tokens in the cache of each sequence")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of sequences")
    parser.add_argument("--cache", type=Path, help="folder for compiled weights")
    args = parser.parse_args()
    blocks_each = -(-args.context // BLOCK_SIZE)
    forward_pass = load_filled(
        args.folder,
        precision=args.precision,
        num_threads=args.threads,
        num_blocks=max(args.sequences) * blocks_each,
        cache_folder=args.cache,
    )
    print(f"{args.precision}, {args.threads} threads, {args.context} tokens of context")
    for num_sequences in args.sequences:
        rows = [decode_row(index, args.context, blocks_each) for index in range(num_sequences)]
        times = time_steps(forward_pass, rows, args.seconds)
        median, best = num_sequences / statistics.median(times), num_sequences / min(times)
        print(f"{num_sequences:3} sequences: {median:6.0f} tokens/s (best {best:.0f})")


def load_filled(
    folder: Path, *, precision: Precision, num_threads: int, num_blocks: int, cache_folder: Path | None
) -> ForwardPass:
    """The forward pass with a KV cache of computed keys and values."""
    config = read_model_config(folder)
    weights = load_weights(folder, config, precision=precision, cache_folder=cache_folder, report=print)
    forward_pass = ForwardPass(
        config,
        weights,
        build_graph(config, weights.tensors),
        precision=precision,
        num_threads=num_threads,
        num_blocks=num_blocks,
    )
    rows = [fill_row(block_id, config.vocab_size) for block_id in range(num_blocks)]
    for start in range(0, num_blocks, FILL_ROWS):
        forward_pass.hidden_states(lay_out(rows[start : start + FILL_ROWS]))
    return forward_pass


def fill_row(block_id: int, vocab_size: int) -> PlanRow:
    """A prompt that is one block long: the values of a sequence's later blocks are of the same kind and size."""
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
    """A sequence about to compute its last token, every earlier one cached."""
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


def time_steps(forward_pass: ForwardPass, rows: list[PlanRow], seconds: float) -> list[float]:
    """Seconds of each step, the first ones left out: they make the kernels for this number of rows."""
    for _ in range(3):
        forward_pass.logits(forward_pass.hidden_states(lay_out(rows)))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        forward_pass.logits(forward_pass.hidden_states(lay_out(rows)))
        times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()
