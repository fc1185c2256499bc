"""Tokens per second of `distilgpt2-api batch`, compared with its engine alone.

    python -m benchmarks.batch                          DistilGPT-2's shape, int8, 256 lines of 32 and 128 tokens
    python -m benchmarks.batch --lines 1000 --new-tokens 16

Both answer the same requests, alternating, in one process and with the same number of threads. The engine alone gets
all of them at once, and its texts are discarded. The batch reads lines of JSON, validates them as the service does, and
writes answers in order, on an event loop beside its engine's thread. Models are loaded before. On a shared machine,
compare the share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, write_json

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.line_output import LineHandler, LineOutput
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.output_file import OutputFile
from distilgpt2_api.batch.files.run import Run
from distilgpt2_api.cli.commands.batch import BATCHES_IN_FLIGHT
from distilgpt2_api.cli.local_engine import open_engine
from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import run_requests
from distilgpt2_api.local_service import open_service
from distilgpt2_api.settings import Settings

TOP_K = 50
MAX_LINE_BYTES = 1 << 20
BOUND_PERCENT = 95.0
"""The lowest median share of the engine's rate that the batch must reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Both sides on one load, directly one after the other."""

    engine_rate: float
    """Completion tokens per second, like the next field."""
    batch_rate: float
    loop_ms_per_line: float
    """Processor time of the thread for lines, routes and files: the batch's overhead."""

    @property
    def share_percent(self) -> float:
        return 100 * self.batch_rate / self.engine_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The same requests for both sides, with prompts that no earlier run had."""

    prompts: list[list[int]]
    num_new_tokens: int

    @property
    def num_tokens(self) -> int:
        return len(self.prompts) * self.num_new_tokens

    def requests(self) -> list[GenerationRequest]:
        return [
            GenerationRequest(
                request_id=str(index),
                prompt_token_ids=tuple(prompt),
                params=SamplingParams(max_tokens=self.num_new_tokens, top_k=TOP_K, ignore_eos=True, seed=index),
                is_streamed=False,
            )
            for index, prompt in enumerate(self.prompts)
        ]

    def write(self, path: Path) -> None:
        rest = {"max_tokens": self.num_new_tokens, "top_k": TOP_K, "ignore_eos": True}
        with path.open("w", encoding="utf-8") as file:
            for index, prompt in enumerate(self.prompts):
                body = {"prompt": prompt, "seed": index, **rest}
                line = {"custom_id": str(index), "method": "POST", "url": "/v1/completions", "body": body}
                file.write(json.dumps(line) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--lines", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, help="default: as in `serve`")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("batch", machine)
    options = {"model": str(prepare_model_folder(args.model)), "precision": args.precision, "cache_home": COMPILED}
    settings = Settings(**options, **({"num_threads": args.threads} if args.threads else {}))
    rounds = asyncio.run(measure_alternately(settings, args))
    what = f"{args.lines} lines of {args.prompt_tokens} tokens, {args.new_tokens} new tokens, top-k {TOP_K}"
    print(f"\n{args.precision}, {what}; tokens/s, median (range) of {args.repeats}\n")
    share = Spread.of([one.share_percent for one in rounds])
    row = [
        str(args.precision),
        f"{Spread.of([one.batch_rate for one in rounds]):.0f}",
        f"{Spread.of([one.engine_rate for one in rounds]):.0f}",
        f"{share:.1f} %",
        f"{Spread.of([one.loop_ms_per_line for one in rounds]):.2f}",
    ]
    print_table(["", "batch", "engine alone", "share", "event loop, ms per line"], [row])
    write_json("batch", machine, {"arguments": vars(args), "rounds": rounds})
    if share.median < BOUND_PERCENT:
        sys.exit(f"the batch reaches less than {BOUND_PERCENT:g} % of its engine's rate")


async def measure_alternately(settings: Settings, args: argparse.Namespace) -> list[Round]:
    """Measure both sides in each round; the side that begins alternates."""
    rounds: list[Round] = []
    with open_engine(settings) as engine:
        token_ids = range(engine.config.vocab_size - 1)
        async with open_service(settings) as handle_line:
            for index in range(-1, args.repeats):  # the first makes kernels for each number of rows
                prompts = [random.choices(token_ids, k=args.prompt_tokens) for _ in range(args.lines)]
                load = Load(prompts=prompts, num_new_tokens=args.new_tokens)
                if index % 2:
                    engine_s = run_engine(engine, load)
                    batch_s, loop_s = await run_batch(settings, handle_line, load)
                else:
                    batch_s, loop_s = await run_batch(settings, handle_line, load)
                    engine_s = run_engine(engine, load)
                turn = Round(
                    engine_rate=load.num_tokens / engine_s,
                    batch_rate=load.num_tokens / batch_s,
                    loop_ms_per_line=1000 * loop_s / args.lines,
                )
                if index >= 0:
                    rounds.append(turn)
    return rounds


def run_engine(engine: Engine, load: Load) -> float:
    """Seconds."""
    requests = load.requests()
    begin_s = time.perf_counter()
    num_tokens = sum(delta.num_completion_tokens for _, delta in run_requests(engine, requests))
    seconds = time.perf_counter() - begin_s
    assert num_tokens == load.num_tokens
    return seconds


async def run_batch(settings: Settings, handle_line: LineHandler, load: Load) -> tuple[float, float]:
    """Seconds from the input's first byte to the output's last, and processor seconds of this thread in between."""
    line_outputs: list[LineOutput] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load.write(folder / "in.jsonl")
        begin_s, loop_begin_s = time.perf_counter(), time.thread_time()
        source = InputFile(folder / "in.jsonl", max_line_bytes=MAX_LINE_BYTES, parameters=())
        output, errors = (OutputFile(folder / name, file_format=JsonLines()) for name in ("output", "errors"))
        run = Run(
            source,
            writer=OrderedWriter(output=output, errors=errors, is_ordered=True, on_written=line_outputs.append),
            completed=stack.enter_context(CompletedLines()),
            custom_ids=stack.enter_context(CustomIds()),
            handle_line=handle_line,
        )
        await run.finish(max_in_flight=BATCHES_IN_FLIGHT * settings.max_num_sequences)
        for file in (output, errors):
            file.close()
        seconds, loop_s = time.perf_counter() - begin_s, time.thread_time() - loop_begin_s
        lines = [json.loads(line) for line in (folder / "output").read_bytes().splitlines()]
    usages = [line["response"]["body"]["usage"] for line in lines]
    assert sum(usage["completion_tokens"] for usage in usages) == load.num_tokens
    return seconds, loop_s


if __name__ == "__main__":
    main()
