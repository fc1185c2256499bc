"""The gain of drafts on text that repeats itself, and their cost on text that does not.

    python -m benchmarks.drafts ../shared/corpus/stories-heldout.txt [--repeats 5]

The engine with drafts, alternating with the engine without, for one and few sequences: on the demo model, whose
completions are text, and on DistilGPT-2's shape with random weights, which repeats itself with greedy decoding (the
best case) and never repeats anything with top-k 50 (the worst). Then the duration of a step of one sequence for
several numbers of draft tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, repeat_interleaved, write_json
from benchmarks.timed_engine import engine_config

from distilgpt2_api.core.config import BLOCK_SIZE, MAX_DRAFT_TOKENS, Precision
from distilgpt2_api.core.events import SilentObserver, StepStats
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, StepPlan
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.evaluation import split_documents
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.text.tokenization.tokenizer_files import END_OF_TEXT

NUMS_DRAFTS = (0, 1, 3, 7, 15)
NUM_STEPS = 60
"""Steps timed for each number of drafts in each round."""
SAMPLING: dict[str, SamplingParams] = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature 0.7, top-p 0.9": SamplingParams(temperature=0.7, top_p=0.9),
    "top-k 50": SamplingParams(top_k=50),
}


@dataclass(frozen=True, slots=True)
class Run:
    rate: float
    """Completion tokens per second."""
    num_steps: int
    num_drafted: int
    num_accepted: int


class CountingObserver(SilentObserver):
    def __init__(self) -> None:
        self.num_steps = self.num_drafted = self.num_accepted = 0

    def on_step(self, stats: StepStats) -> None:
        self.num_steps += 1
        self.num_drafted += stats.schedule.num_draft_tokens
        self.num_accepted += stats.num_accepted_tokens


class CountedEngine:
    """Owns an engine, built as `serve` builds it."""

    def __init__(self, folder: Path, args: argparse.Namespace, *, max_draft_tokens: int) -> None:
        self._observer = CountingObserver()
        config = replace(
            engine_config(args.precision, args.threads),
            max_draft_tokens=max_draft_tokens,
            is_prefix_caching=False,
            prefix_cache_bytes=0,
        )
        self._engine: Engine = load_engine(folder, config, cache_folder=COMPILED, observer=self._observer, report=print)

    def run(self, prompts: Sequence[Sequence[int]], params: SamplingParams, num_new_tokens: int) -> Run:
        """Run all prompts at once, to their full length; the time includes prefill."""
        engine, observer = self._engine, self._observer
        observer.num_steps = observer.num_drafted = observer.num_accepted = 0
        for index, prompt in enumerate(prompts):
            of_this = replace(params, max_tokens=num_new_tokens, ignore_eos=True, seed=index)
            request = GenerationRequest(request_id=str(index), prompt_token_ids=tuple(prompt), params=of_this)
            engine.add(request, submitted_s=time.monotonic())
        begin_s = time.perf_counter()
        while engine.has_work:
            engine.step()
        run_s = time.perf_counter() - begin_s
        return Run(
            rate=len(prompts) * num_new_tokens / run_s,
            num_steps=observer.num_steps,
            num_drafted=observer.num_drafted,
            num_accepted=observer.num_accepted,
        )

    def close(self) -> None:
        self._engine.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "text", type=Path, help=f"documents, `{END_OF_TEXT}` between them: their beginnings are prompts"
    )
    parser.add_argument("--trained", type=Path, default=BUNDLED_FOLDER, help="model folder that completes them")
    parser.add_argument("--model", type=Path, help="model folder of random weights (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, help="default: as in `serve`")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("drafts", machine)
    folder = prepare_model_folder(args.model)
    prompts = {
        args.trained: read_beginnings(args.text, args.trained, args.prompt_tokens, max(args.sequences)),
        folder: make_up_prompts(folder, args.prompt_tokens, max(args.sequences)),
    }
    cases = [
        (args.trained, "greedy"),
        (args.trained, "temperature 0.7, top-p 0.9"),
        (folder, "greedy"),
        (folder, "top-k 50"),
    ]
    engines = {
        (model, has_drafts): CountedEngine(model, args, max_draft_tokens=MAX_DRAFT_TOKENS if has_drafts else 0)
        for model, has_drafts in product(prompts, (False, True))
    }
    measurements: dict[str, Callable[[], Run]] = {
        name_of(model, sampling, num_sequences, has_drafts=has_drafts): partial(
            engines[model, has_drafts].run, prompts[model][:num_sequences], SAMPLING[sampling], args.new_tokens
        )
        for model, sampling in cases
        for num_sequences in args.sequences
        for has_drafts in (False, True)
    }
    repeat_interleaved(measurements, 1)  # the first run of each reserves memory
    runs = repeat_interleaved(measurements, args.repeats)
    for engine in engines.values():
        engine.close()
    print_gains(args, cases, runs)
    steps_ms = measure_steps(folder, args)
    print_steps(steps_ms)
    write_json("drafts", machine, {"arguments": vars(args), "results": runs, "steps_ms": steps_ms})


def read_beginnings(text: Path, folder: Path, num_tokens: int, num_prompts: int) -> list[list[int]]:
    """Beginnings of the first documents that are long enough."""
    tokenizer = Tokenizer.from_folder(folder)
    documents = split_documents(text.read_text(encoding="utf-8"), [END_OF_TEXT])
    beginnings = (tokenizer.encode(document)[:num_tokens] for document in documents)
    return [beginning for beginning in beginnings if len(beginning) == num_tokens][:num_prompts]


def make_up_prompts(folder: Path, num_tokens: int, num_prompts: int) -> list[list[int]]:
    random, vocab_size = np.random.default_rng(0), read_model_config(folder).vocab_size
    return [random.integers(0, vocab_size - 1, num_tokens).tolist() for _ in range(num_prompts)]


def measure_steps(folder: Path, args: argparse.Namespace) -> dict[int, list[float]]:
    """Median milliseconds of a decode step of one sequence with N wrong drafts, for each N, one value per round."""
    num_context = 4 * BLOCK_SIZE
    block_ids = list(range(num_context // BLOCK_SIZE + 1))
    runner = Runner.load(
        folder,
        engine_config(args.precision, args.threads),
        num_blocks=len(block_ids),
        cache_folder=COMPILED,
        report=print,
    )
    (token_ids,) = make_up_prompts(folder, num_context + 1, 1)
    params = SamplingParams(top_k=50)

    def step(num_computed_tokens: int, num_new_tokens: int, draft_token_ids: Sequence[int]) -> None:
        row = PlanRow(
            sequence_id=0,
            token_ids=token_ids,
            num_prompt_tokens=num_context,
            num_computed_tokens=num_computed_tokens,
            num_new_tokens=num_new_tokens,
            block_ids=block_ids,
            params=params,
            seed=0,
            is_sampling=num_computed_tokens + num_new_tokens == len(token_ids),
            draft_token_ids=draft_token_ids,
        )
        runner.run(StepPlan(rows=[row]))

    def measure(num_drafts: int) -> float:
        times_ms = []
        for _ in range(NUM_STEPS):
            begin_s = time.perf_counter()
            step(num_context, 1, token_ids[:num_drafts])
            times_ms.append(1000 * (time.perf_counter() - begin_s))
        return Spread.of(times_ms).median

    step(0, num_context, ())
    measurements = {str(num_drafts): partial(measure, num_drafts) for num_drafts in NUMS_DRAFTS}
    repeat_interleaved(measurements, 1)
    results = repeat_interleaved(measurements, args.repeats)
    runner.close()
    return {int(num_drafts): values for num_drafts, values in results.items()}


def name_of(model: Path, sampling: str, num_sequences: int, *, has_drafts: bool) -> str:
    return f"{model.name}, {sampling}, {num_sequences}, {'with' if has_drafts else 'without'}"


def print_gains(args: argparse.Namespace, cases: Sequence[tuple[Path, str]], runs: Mapping[str, Sequence[Run]]) -> None:
    rows = []
    for (model, sampling), num_sequences in product(cases, args.sequences):
        without = runs[name_of(model, sampling, num_sequences, has_drafts=False)]
        drafted = runs[name_of(model, sampling, num_sequences, has_drafts=True)]
        ratios = [one.rate / other.rate for one, other in zip(drafted, without, strict=True)]
        last = drafted[-1]
        rows.append(
            [
                f"{model.name}, {sampling}",
                num_sequences,
                f"{Spread.of([run.rate for run in without]):.0f}",
                f"{Spread.of([run.rate for run in drafted]):.0f}",
                f"{Spread.of(ratios):.2f}",
                last.num_drafted,
                last.num_accepted,
                f"{num_sequences * args.new_tokens / last.num_steps:.2f}",
            ]
        )
    print(f"\n{args.precision}, {args.prompt_tokens}-token prompts, {args.new_tokens} new tokens;")
    print(f"tokens/s, median (range) of {args.repeats}\n")
    header = ["", "sequences", "without", "with", "ratio", "drafted", "came", "tokens/step"]
    print_table(header, rows)


def print_steps(steps_ms: Mapping[int, Sequence[float]]) -> None:
    alone = steps_ms[0]
    rows = []
    for num_drafts, times_ms in steps_ms.items():
        ratios = [time_ms / other_ms for time_ms, other_ms in zip(times_ms, alone, strict=True)]
        rows.append([num_drafts, f"{Spread.of(times_ms):.2f}", f"{Spread.of(ratios):.2f}"])
    print("A step of one sequence with wrong drafts\n")
    print_table(["drafts", "ms", "relative to none"], rows)


if __name__ == "__main__":
    main()
