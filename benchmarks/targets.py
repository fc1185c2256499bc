"""Ratios of two instruction sets of this processor: steps of the forward pass, alternating in one process.

    python benchmarks/make_model.py /tmp/random
    python -m benchmarks.targets /tmp/random --kernels amx avx512vnni

Decode steps without sampling, the first step of a prompt, and scoring, where every token has logits. The output has the
median times and the median of the ratios of neighbouring steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.forward import decode_row, fill_cache, logits_alone
from benchmarks.report import describe_machine, print_header, print_table

from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.kernels.forward_pass import ForwardPass
from distilgpt2_api.model.kernels.library import find_targets
from distilgpt2_api.model.step_inputs import lay_out
from distilgpt2_api.model.weights.compiled_cache import load_weights

CONTEXT = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Rows of a step, and the tokens of it that have logits."""

    name: str
    rows: list[PlanRow]
    drawn: Sequence[int]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kernels", nargs=2, default=find_targets()[:2], help="default: the two best")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 16, 32, 64])
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 900], help="tokens of a prompt")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each case")
    args = parser.parse_args(arguments)
    config = read_model_config(args.folder)
    weights = load_weights(args.folder, config, precision=args.precision, cache_folder=None, report=print)
    num_blocks = max(max(args.sequences) * CONTEXT, *args.prompts) // BLOCK_SIZE + 1
    passes = [
        ForwardPass(
            config,
            weights,
            precision=args.precision,
            num_threads=args.threads,
            num_blocks=num_blocks,
            target=target,
        )
        for target in args.kernels
    ]
    for forward_pass in passes:
        fill_cache(forward_pass, num_blocks, config.vocab_size)
    blocks_each = CONTEXT // BLOCK_SIZE
    decodes = (
        Case(
            name=f"{count} sequences",
            rows=[decode_row(index, CONTEXT, blocks_each) for index in range(count)],
            drawn=range(count),
        )
        for count in args.sequences
    )
    prompts = [prompt_row(count, config.vocab_size) for count in args.prompts]
    prefills = (
        Case(name=f"prompt of {row.num_new_tokens}", rows=[row], drawn=[row.num_new_tokens - 1]) for row in prompts
    )
    scores = (
        Case(name=f"score {row.num_new_tokens}", rows=[row], drawn=range(row.num_new_tokens)) for row in prompts[:1]
    )
    print_header("targets", describe_machine())
    print(f"{args.precision}, {args.threads} threads, {CONTEXT} tokens of context; ms, medians")
    rows = []
    for case in (*decodes, *prefills, *scores):
        first, second = time_alternating(passes, case, args.seconds)
        ratio = statistics.median(there / here for here, there in zip(first, second, strict=True))
        rows.append(
            [case.name, *(f"{statistics.median(times) * 1e3:.2f}" for times in (first, second)), f"{ratio:.2f}"]
        )
    print_table(["", *args.kernels, f"{args.kernels[1]} / {args.kernels[0]}"], rows)
    for forward_pass in passes:
        forward_pass.close()


def prompt_row(num_tokens: int, vocab_size: int) -> PlanRow:
    """A prompt that is computed in one step."""
    return PlanRow(
        sequence_id=0,
        token_ids=[(7 * position * position + 3 * position) % vocab_size for position in range(num_tokens)],
        num_prompt_tokens=num_tokens,
        num_computed_tokens=0,
        num_new_tokens=num_tokens,
        block_ids=list(range(-(-num_tokens // BLOCK_SIZE))),
        params=SamplingParams(),
        seed=0,
        is_sampling=True,
    )


def time_alternating(passes: Sequence[ForwardPass], case: Case, seconds: float) -> list[list[float]]:
    """Seconds of each step of each forward pass, without the first ones, in which the kernels reserve memory."""
    inputs, draws = lay_out(case.rows), logits_alone(case.drawn)
    times: list[list[float]] = [[] for _ in passes]
    for forward_pass in passes:
        forward_pass.engine.step(inputs, draws)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for forward_pass, measured in zip(passes, times, strict=True):
            forward_pass.engine.step(inputs, draws)  # once more, so that both find the caches as they leave them
            begin = time.perf_counter()
            forward_pass.engine.step(inputs, draws)
            measured.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main()
