"""The cost of grammars for other sequences: 31 without a grammar, alone and beside one or eight with one.

    python -m benchmarks.structured [--model FOLDER] [--repeats 5]

The engine runs all sequences at once; measurements alternate. One or eight other sequences run beside the 31, free or
guided, so that the batch size is the same, and the ratio compares the rates of the 31. The guided ones follow a JSON
schema at every step. On a shared machine rates and ratios are noise; read the grammars' own times: starting the masks,
waiting for them, and following the sampled tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, repeat_interleaved, write_json
from benchmarks.timed_engine import engine_config

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.events import SilentObserver
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.engine.grammar_state import StepMask

NUM_OTHERS = 31
NUMS_GUIDED = (1, 8)
SCHEMA = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 40},
                    "age": {"type": "integer", "minimum": 0, "maximum": 120},
                    "mood": {"enum": ["glad", "sad", "angry"]},
                },
                "required": ["name", "age", "mood"],
                "additionalProperties": False,
            },
            "minItems": 1000,
        }
    },
    "required": ["people"],
    "additionalProperties": False,
}
"""A schema whose text does not end within the run."""
GRAMMAR = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))


@dataclass(frozen=True, slots=True)
class Run:
    rate: float
    """Tokens per second of the sequences without grammars."""
    step_ms: float
    guides_ms: float
    """Average time of the grammars per step."""


class Stopwatch:
    """Sums the seconds of an engine's grammar methods."""

    def __init__(self, engine: Engine) -> None:
        self.seconds = 0.0
        guides = engine._grammar_state  # noqa: SLF001 - the benchmark times private parts
        for owner, method in ((guides, "begin_masks"), (guides, "accept"), (StepMask, "wait")):
            self._time(owner, method)

    def _time(self, owner: object, method: str) -> None:
        call: Callable[..., Any] = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.seconds += time.perf_counter() - begin_s

        setattr(owner, method, timed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, help="default: as in `serve`")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("structured output", machine)
    config = replace(
        engine_config(args.precision, args.threads, max_step_tokens=512), is_prefix_caching=False, prefix_cache_bytes=0
    )
    folder = prepare_model_folder(args.model)
    engine = load_engine(folder, config, cache_folder=COMPILED, observer=SilentObserver(), report=print)
    stopwatch = Stopwatch(engine)
    measurements: dict[str, Callable[[], Run]] = {
        name_of(num_beside, is_guided): partial(
            measure,
            engine,
            stopwatch,
            num_beside,
            GRAMMAR if is_guided else None,
            num_prompt_tokens=args.prompt_tokens,
            num_new_tokens=args.new_tokens,
        )
        for num_beside in NUMS_GUIDED
        for is_guided in (False, True)
    }
    for warm_up in measurements.values():
        warm_up()
    runs = repeat_interleaved(measurements, args.repeats)
    engine.close()
    rows = []
    for num_beside in NUMS_GUIDED:
        free, guided = runs[name_of(num_beside, is_guided=False)], runs[name_of(num_beside, is_guided=True)]
        ratios = [100 * with_masks.rate / without.rate for with_masks, without in zip(guided, free, strict=True)]
        rows.append(
            [
                num_beside,
                f"{Spread.of([run.rate for run in free]):.0f}",
                f"{Spread.of([run.rate for run in guided]):.0f}",
                f"{Spread.of(ratios):.1f} %",
                f"{Spread.of([run.step_ms for run in guided]):.2f}",
                f"{Spread.of([run.guides_ms for run in guided]):.3f}",
            ]
        )
    print(f"\n{args.precision}, {args.prompt_tokens}-token prompts, {args.new_tokens} new tokens, greedy;")
    print(f"tokens/s of the {NUM_OTHERS} without grammars, median (range) of {args.repeats}\n")
    print_table(["beside them", "free", "guided", "ratio", "step, ms", "of it grammars, ms"], rows)
    write_json("structured", machine, {"arguments": vars(args), "results": runs})


def name_of(num_beside: int, is_guided: bool) -> str:
    return f"{num_beside} {'guided' if is_guided else 'free'}"


def measure(
    engine: Engine,
    stopwatch: Stopwatch,
    num_beside: int,
    grammar: Grammar | None,
    *,
    num_prompt_tokens: int,
    num_new_tokens: int,
) -> Run:
    """Measure the 31 sequences while `num_beside` others run beside them for the same time."""
    draw = np.random.default_rng(0)
    if grammar is not None:
        engine.grammars.check(grammar, param="grammar")
    for index in range(NUM_OTHERS + num_beside):
        params = SamplingParams(
            max_tokens=num_new_tokens,
            temperature=0.0,
            ignore_eos=True,
            grammar=grammar if index >= NUM_OTHERS else None,
        )
        prompt = draw.integers(0, engine.config.vocab_size - 1, num_prompt_tokens).tolist()
        request = GenerationRequest(request_id=str(index), prompt_token_ids=tuple(prompt), params=params)
        engine.add(request, submitted_s=time.monotonic())
    stopwatch.seconds = 0.0
    num_steps = 0
    begin_s = time.perf_counter()
    while engine.has_work:
        engine.step()
        num_steps += 1
    run_s = time.perf_counter() - begin_s
    return Run(
        rate=NUM_OTHERS * num_new_tokens / run_s,
        step_ms=1000 * run_s / num_steps,
        guides_ms=1000 * stopwatch.seconds / num_steps,
    )


if __name__ == "__main__":
    main()
