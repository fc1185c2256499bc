"""Speed and quality of each precision: perplexity of the trained demo model, and tokens per second.

    python -m benchmarks.precision ../shared/corpus/stories-heldout.txt

Perplexity is measured as by `distilgpt2-api evaluate`, on a text that the model has not seen. For DistilGPT-2's shape
only rates are measured, because random weights have no meaningful perplexity. Rates are the engine's; measurements
alternate, and each precision's ratio to f32 is from the same round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, repeat_interleaved, write_json
from benchmarks.timed_engine import Load, TimedEngine, engine_config

from distilgpt2_api.core.config import Precision
from distilgpt2_api.engine.evaluation import Evaluation, Stream, evaluate, read_stream
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.settings.host_resources import count_usable_cores
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

STEP_TOKENS = 512
MAX_LOSS = 1.01
"""Highest ratio of perplexity to f32's; the default precision is the fastest one below it."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="documents, `<|endoftext|>` between them")
    parser.add_argument("--trained", type=Path, default=BUNDLED_FOLDER, help="model folder for perplexity and rates")
    parser.add_argument("--model", type=Path, help="model folder for rates (default: random weights)")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("precision", machine)
    stream = read_stream(
        args.text.read_text(encoding="utf-8"), Tokenizer.from_folder(args.trained), read_model_config(args.trained)
    )
    evaluations = {precision: score(args.trained, precision, args.threads, stream) for precision in Precision}
    folders = {args.trained.name: args.trained, "DistilGPT-2's shape": prepare_model_folder(args.model)}
    engines = {
        (model, precision): TimedEngine(folder, precision=precision, num_threads=args.threads, cache_folder=COMPILED)
        for model, folder in folders.items()
        for precision in Precision
    }
    measurements: dict[str, Callable[[], float]] = {
        name_for(model, precision, num_sequences): partial(measure, engine, num_sequences, args.new_tokens)
        for model in folders
        for num_sequences in args.sequences
        for precision, engine in ((precision, engines[model, precision]) for precision in Precision)
    }
    repeat_interleaved(measurements, 1)  # the kernels prepare for each number of rows
    results = repeat_interleaved(measurements, args.repeats)
    for engine in engines.values():
        engine.close()
    print_precisions(args, list(folders), evaluations, results)
    write_json("precision", machine, {"arguments": vars(args), "evaluations": evaluations, "results": results})


def score(folder: Path, precision: Precision, num_threads: int, stream: Stream) -> Evaluation:
    num_positions = read_model_config(folder).num_positions
    runner = Runner.load(
        folder,
        engine_config(precision, num_threads),
        num_blocks=num_blocks_for(num_positions + 1),
        cache_folder=COMPILED,
        report=print,
    )
    try:
        return evaluate(
            runner.run, stream, num_positions=num_positions, max_step_tokens=STEP_TOKENS, on_scored=lambda _: None
        )
    finally:
        runner.close()


def measure(engine: TimedEngine, num_sequences: int, num_new_tokens: int) -> float:
    load = Load(num_sequences=num_sequences, num_prompt_tokens=32, num_new_tokens=num_new_tokens, top_k=50)
    return engine.run(load).engine_rate


def name_for(model: str, precision: Precision, num_sequences: int) -> str:
    return f"{model}, {precision}, {num_sequences}"


def print_precisions(
    args: argparse.Namespace,
    models: Sequence[str],
    evaluations: Mapping[Precision, Evaluation],
    results: Mapping[str, Sequence[float]],
) -> None:
    print(f"\n{args.text.name}; tokens/s of the engine, median (range) of {args.repeats}, and times f32\n")
    columns = [(model, num_sequences) for model in models for num_sequences in args.sequences]
    header = ["", "perplexity", "over f32", "bits/byte"]
    header += [f"{model}, {num_sequences}" for model, num_sequences in columns]
    reference = evaluations[Precision.F32].perplexity
    rows = []
    for precision, evaluation in evaluations.items():
        row = [
            str(precision),
            f"{evaluation.perplexity:.3f}",
            f"{100 * (evaluation.perplexity / reference - 1):+.2f} %",
            f"{evaluation.bits_per_byte:.4f}",
        ]
        for model, num_sequences in columns:
            rates = results[name_for(model, precision, num_sequences)]
            ratios = [
                rate / other
                for rate, other in zip(rates, results[name_for(model, Precision.F32, num_sequences)], strict=True)
            ]
            row.append(f"{Spread.of(rates):.0f}, {Spread.of(ratios).median:.2f}")
        rows.append(row)
    print_table(header, rows)
    last = columns[-1]
    within = [one for one in evaluations if evaluations[one].perplexity <= MAX_LOSS * reference]
    fastest = max(within, key=lambda one: Spread.of(results[name_for(last[0], one, last[1])]).median)
    print(f"The fastest within 1 % of f32's perplexity ({last[0]}, {last[1]} sequences): {fastest}\n")


if __name__ == "__main__":
    main()
