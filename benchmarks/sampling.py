"""Milliseconds to draw a step's tokens, by kind of row and number of rows, and their share of the step.

    python -m benchmarks.sampling [--rows 1 8 32 64] [--repeats 100]

Logits follow Zipf's law over GPT-2's vocabulary, in a different order in each row. The forward pass is that of
DistilGPT-2's shape in int8. The draws read each row of logits for its maxima, which in a step the LM head does. Prints
medians, and each kind's share of forward pass and draws. The last lines show that rows without a sampler pay
nothing for others' samplers: a call with both, as a multiple of calls with one kind.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from benchmarks.forward import decode_row, load_filled, time_steps
from benchmarks.model_folder import COMPILED, prepare_model_folder
from numpy.typing import NDArray

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.kernels.draws import DrawBatch, sampling_draws
from distilgpt2_api.model.kernels.kernel_engine import KernelEngine
from distilgpt2_api.model.kernels.structures import Model
from distilgpt2_api.settings.host_resources import count_usable_cores

VOCAB_SIZE = 50_257
CONTEXT, BLOCKS_EACH = 96, 3
KINDS = {
    "greedy": SamplingParams(temperature=0.0),
    "whole distribution": SamplingParams(),
    "top-k 50": SamplingParams(top_k=50),
    "top-k 1000": SamplingParams(top_k=1000),
    "top-p 0.9, temperature 0.7": SamplingParams(top_p=0.9, temperature=0.7),
    "top-p 0.9": SamplingParams(top_p=0.9),
    "top-k 50, top-p 0.9": SamplingParams(top_k=50, top_p=0.9),
    "min-p 0.05": SamplingParams(min_p=0.05),
    "top-p 0.99": SamplingParams(top_p=0.99),
    "typical 0.5": SamplingParams(typical_p=0.5),
    "typical 0.9": SamplingParams(typical_p=0.9),
    "top-n-sigma 1": SamplingParams(top_n_sigma=1.0),
    "dynamic temperature": SamplingParams(dynatemp_range=0.5),
    "XTC in every draw": SamplingParams(xtc_probability=1.0),
    "mirostat 2": SamplingParams(mirostat=2),
    "greedy, 5 log-probabilities": SamplingParams(temperature=0.0, num_logprobs=5),
}


EVERY_SAMPLER = SamplingParams(top_n_sigma=3.0, dynatemp_range=0.5, xtc_probability=1.0, mirostat=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    logits = [make_logits(num_rows) for num_rows in arguments.rows]
    forward_ms = [measure_forward(num_rows) for num_rows in arguments.rows]
    print(f"{'ms for … rows':30}", *(f"{num_rows:>15}" for num_rows in arguments.rows))
    print(f"{'(forward pass)':30}", *(f"{one:15.3f}" for one in forward_ms), flush=True)
    engine = open_kernels(count_usable_cores())
    for kind, params in KINDS.items():
        times = [measure(partial_draw(engine, one, [params]), arguments.repeats) for one in logits]
        shares = [100 * one / (one + step) for one, step in zip(times, forward_ms, strict=True)]
        cells = [f"{one:.3f} ({share:.1f} %)" for one, share in zip(times, shares, strict=True)]
        print(f"{kind:30}", *(f"{cell:>15}" for cell in cells), flush=True)
    for kind in ("whole distribution", "top-k 50"):
        ratios = [measure_beside(engine, one, KINDS[kind], arguments.repeats) for one in logits]
        print(f"{f'{kind}, beside others':30}", *(f"{ratio:>13.3f} x" for ratio in ratios), flush=True)


def open_kernels(num_threads: int) -> KernelEngine:
    """Kernels that only draw."""
    return KernelEngine(Model(vocab_size=VOCAB_SIZE), num_threads=num_threads)


def make_logits(num_rows: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    ranks = np.stack([random.permutation(VOCAB_SIZE) + 1 for _ in range(num_rows)])
    return (-1.2 * np.log(ranks)).astype(np.float32)


def partial_draw(
    engine: KernelEngine, logits: NDArray[np.float32], kinds: Sequence[SamplingParams]
) -> Callable[[], object]:
    """Draws from all rows, at other positions each time. Row i has the parameters `kinds[i % len(kinds)]`."""
    params = [kinds[index % len(kinds)] for index in range(len(logits))]
    draws = DrawBatch(sampling_draws(params, range(len(logits)), range(len(logits)), vocab_size=VOCAB_SIZE))
    for index, one in enumerate(params):
        if one.mirostat:
            draws.largest_surprisals[index] = 2 * one.mirostat_tau

    def draw() -> None:
        draws.positions[:] += 1
        engine.draw(draws, logits, logits)

    return draw


def measure_beside(engine: KernelEngine, logits: NDArray[np.float32], params: SamplingParams, repeats: int) -> float:
    """A call in which half the rows have `params` and half every sampler, times the mean of two calls of one kind."""
    kinds = ([params, EVERY_SAMPLER], [params], [EVERY_SAMPLER])
    actions = [partial_draw(engine, np.repeat(logits, 2, axis=0), some) for some in kinds]
    times = np.array([[measure(action, 5) for action in actions] for _ in range(max(repeats // 5, 5))])
    return float(np.median(2 * times[:, 0] / (times[:, 1] + times[:, 2])))


def measure_forward(num_rows: int) -> float:
    """Median milliseconds of the forward pass."""
    forward_pass = load_filled(
        prepare_model_folder(None),
        precision=Precision.INT8,
        num_threads=count_usable_cores(),
        num_blocks=num_rows * BLOCKS_EACH,
        cache_folder=COMPILED,
    )
    rows = [decode_row(index, CONTEXT, BLOCKS_EACH) for index in range(num_rows)]
    times = time_steps(forward_pass, rows, 0.5)
    forward_pass.close()
    return float(np.median(times)) * 1e3


def measure(action: Callable[[], object], repeats: int) -> float:
    """Median duration in milliseconds."""
    times = []
    for _ in range(max(repeats, 5)):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return float(np.median(times)) * 1e3


if __name__ == "__main__":
    main()
