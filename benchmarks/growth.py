"""The cost of a decode step by number of sequences, context length and model size.

    python -m benchmarks.growth
    python -m benchmarks.growth --models distilgpt2 gpt2 --sequences 1 32 --contexts 128 1000

The bare forward pass of random models of 82, 124 and 355 million weights, with a KV cache of computed values. Beside
each step it times only the matrix products of the same sizes (`reference_kernel.py`): the difference is attention, the
rest of the graph and the call. Measurements alternate; the output has medians. If twice the sequences give less than a
tenth more tokens, scaling has ended: the products are bound by arithmetic, or the KV cache is larger than the weights.

Prints tables in markdown, and writes JSON and plots.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.forward import decode_row, load_filled, time_steps
from benchmarks.line_plot import Line, Point, draw_plot
from benchmarks.model_folder import COMPILED, SHAPES, prepare_shape_folder
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

from distilgpt2_api.core.config import BLOCK_SIZE, Precision
from distilgpt2_api.model.architectures.registry import count_weights, read_model_config
from distilgpt2_api.settings.host_resources import count_usable_cores

MIN_GAIN = 1.1


class Model:
    """Owns one model's forward pass and the reference of its sizes."""

    def __init__(
        self, name: str, precision: Precision, num_threads: int, max_cached_tokens: int, seconds: float
    ) -> None:
        folder = prepare_shape_folder(name)
        config = read_model_config(folder)
        num_blocks = -(-max_cached_tokens // BLOCK_SIZE)
        self.title = f"{name}, {count_weights(config) / 1e6:.0f} M"
        self._seconds = seconds
        self._reference = ReferenceKernel(config)
        self._forward_pass = load_filled(
            folder, precision=precision, num_threads=num_threads, num_blocks=num_blocks, cache_folder=COMPILED
        )

    def step_s(self, num_sequences: int, context: int) -> float:
        blocks_each = -(-context // BLOCK_SIZE)
        rows = [decode_row(index, context, blocks_each) for index in range(num_sequences)]
        return statistics.median(time_steps(self._forward_pass, rows, self._seconds))

    def products_s(self, num_sequences: int) -> float:
        return num_sequences / self._reference.rows_per_s(num_sequences)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--context", type=int, default=96, help="context length for --sequences")
    parser.add_argument("--contexts", type=int, nargs="+", default=[32, 128, 256, 512, 1000])
    parser.add_argument("--at", type=int, default=32, help="number of sequences for --contexts")
    parser.add_argument("--seconds", type=float, default=0.5, help="duration of each measurement, without warm-up")
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plots")
    args = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine()
    print_header("growth", machine)
    # Sequences share no blocks, so each has whole ones.
    longest = (max(args.contexts) + BLOCK_SIZE) * args.at
    widest = (args.context + BLOCK_SIZE) * max(args.sequences)
    models = {
        name: Model(name, args.precision, args.threads, max(longest, widest), args.seconds) for name in args.models
    }
    measurements: dict[str, Callable[[], float]] = {}
    for name, model in models.items():
        for num_sequences in args.sequences:
            measurements[key(name, num_sequences, args.context)] = partial(model.step_s, num_sequences, args.context)
            measurements[f"{name} {num_sequences} products"] = partial(model.products_s, num_sequences)
        for context in args.contexts:
            measurements[key(name, args.at, context)] = partial(model.step_s, args.at, context)
    results = repeat_interleaved(measurements, args.repeats)
    titles = {name: model.title for name, model in models.items()}
    print_growth(args, titles, results)
    draw_growth(args, titles, results)
    write_json("growth", machine, {"arguments": vars(args), "titles": titles, "results": results})


def key(name: str, num_sequences: int, context: int) -> str:
    return f"{name} {num_sequences} at {context}"


def print_growth(args: argparse.Namespace, titles: Mapping[str, str], results: Mapping[str, Sequence[float]]) -> None:
    print(f"\n{args.precision}, {args.threads} threads, medians (ranges) of {args.repeats}\n")
    for name, title in titles.items():
        print(f"{title}: sequences, {args.context} tokens of context each\n")
        rows = []
        rates: list[float] = []
        for num_sequences in args.sequences:
            steps = Spread.of([1000 * step_s for step_s in results[key(name, num_sequences, args.context)]])
            products = Spread.of([1000 * step_s for step_s in results[f"{name} {num_sequences} products"]])
            rates.append(1000 * num_sequences / steps.median)
            gain = f"{rates[-1] / rates[-2]:.2f}" if len(rates) > 1 else "-"
            share = 100 * products.median / steps.median
            rows.append(
                [num_sequences, f"{steps:.2f}", f"{products.median:.2f}", f"{share:.0f} %", f"{rates[-1]:.0f}", gain]
            )
        print_table(["sequences", "step, ms", "its products, ms", "share", "tokens/s", "gain"], rows)
        print(describe_end(args.sequences, rates) + "\n")
    print(f"Context, {args.at} sequences: milliseconds of a step, and tokens/s\n")
    header = ["context", *(title for title in titles.values())]
    rows = []
    for context in args.contexts:
        cells = [Spread.of([1000 * step_s for step_s in results[key(name, args.at, context)]]) for name in titles]
        rows.append([context, *(f"{cell:.1f}: {1000 * args.at / cell.median:.0f}" for cell in cells)])
    print_table(header, rows)


def describe_end(sequences: Sequence[int], rates: Sequence[float]) -> str:
    """A sentence with the number of sequences where scaling ends."""
    for index in range(1, len(rates)):
        if rates[index] < MIN_GAIN * rates[index - 1]:
            return (
                f"It stops scaling at {sequences[index - 1]} sequences: {sequences[index]} give less than a tenth more."
            )
    return f"It scales up to {sequences[-1]} sequences."


def draw_growth(args: argparse.Namespace, titles: Mapping[str, str], results: Mapping[str, Sequence[float]]) -> None:
    def line(name: str, title: str, cases: Sequence[tuple[int, int, int]]) -> Line:
        points = []
        for x, num_sequences, context in cases:
            rates = Spread.of([num_sequences / step_s for step_s in results[key(name, num_sequences, context)]])
            points.append(Point(x=x, y=rates.median, low=rates.smallest, high=rates.largest))
        return Line(title=title, points=points)

    by_sequences = [(num_sequences, num_sequences, args.context) for num_sequences in args.sequences]
    by_context = [(context, args.at, context) for context in args.contexts]
    plots = {
        "growth-sequences.svg": ("Decode steps by sequences, the bare forward pass", "sequences", by_sequences),
        "growth-context.svg": (f"Decode steps of {args.at} sequences by context", "tokens of context", by_context),
    }
    args.plots.mkdir(parents=True, exist_ok=True)
    for file, (title, x_title, cases) in plots.items():
        lines = [line(name, model_title, cases) for name, model_title in titles.items()]
        drawing = draw_plot(title, x_title, "tokens/s", lines, is_y_logarithmic=True)
        (args.plots / file).write_text(drawing, encoding="utf-8")
        print(f"written: {args.plots / file}")


if __name__ == "__main__":
    main()
