"""Milliseconds to sample a step's tokens, by kind of row and number of rows, compared with numpy.argpartition.

    python -m benchmarks.sampling [--rows 1 8 32 64] [--repeats 100]

Logits follow Zipf's law over GPT-2's vocabulary, in a different order in each row. Prints medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.sampling.sampler import Sampler

VOCAB_SIZE = 50_257
KINDS = {
    "greedy": SamplingParams(temperature=0.0),
    "whole distribution": SamplingParams(),
    "top-k 50": SamplingParams(top_k=50),
    "top-p 0.9, temperature 0.7": SamplingParams(top_p=0.9, temperature=0.7),
    "top-k 50, top-p 0.9": SamplingParams(top_k=50, top_p=0.9),
    "min-p 0.05": SamplingParams(min_p=0.05),
    "top-k 1000": SamplingParams(top_k=1000),
    "top-k 50, repetition penalty": SamplingParams(top_k=50, repetition_penalty=1.2),
    "greedy, 5 log-probabilities": SamplingParams(temperature=0.0, num_logprobs=5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    sampler = Sampler(vocab_size=VOCAB_SIZE)
    logits = [make_logits(num_rows) for num_rows in arguments.rows]
    print(f"{'ms per step of … rows':30}", *(f"{num_rows:>8}" for num_rows in arguments.rows))
    for kind, params in KINDS.items():
        times = [
            measure(partial(sampler.sample, one, make_rows(params, len(one))), arguments.repeats) for one in logits
        ]
        print_line(kind, times)
    times = [measure(partial(np.argpartition, one, -50, axis=1), arguments.repeats // 10) for one in logits]
    print_line("(numpy.argpartition, k = 50)", times)


def make_logits(num_rows: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    ranks = np.stack([random.permutation(VOCAB_SIZE) + 1 for _ in range(num_rows)])
    return (-1.2 * np.log(ranks)).astype(np.float32)


def make_rows(params: SamplingParams, num_rows: int) -> list[PlanRow]:
    return [
        PlanRow(
            sequence_id=index,
            token_ids=list(range(100)),
            num_prompt_tokens=50,
            num_computed_tokens=99,
            num_new_tokens=1,
            block_ids=[0],
            params=params,
            seed=index,
            is_sampling=True,
        )
        for index in range(num_rows)
    ]


def measure(action: Callable[[], object], repeats: int) -> float:
    """Median duration in milliseconds."""
    times = []
    for _ in range(max(repeats, 5)):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return float(np.median(times)) * 1e3


def print_line(kind: str, times: list[float]) -> None:
    print(f"{kind:30}", *(f"{one:8.3f}" for one in times), flush=True)


if __name__ == "__main__":
    main()
