"""Scored tokens per second of the engine, compared with its forward pass, and the limit that body and LM head set.

    python -m benchmarks.scoring                    DistilGPT-2's shape, int8, 16 texts of 256 tokens
    python -m benchmarks.scoring --tokens 1023 --max-step-tokens 512

Three loads alternate: texts with every token scored, as in `/v1/score`; pairs whose second half is scored after the
first; and prompts without scores: prefill alone. The body of the model computes every token, the LM head (50 257
columns) every scored token, so nothing can score faster than both together: this is the limit, from the same steps
without scores, directly afterwards. On a shared machine, compare the shares.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, print_header, print_table, repeat_interleaved, write_json
from benchmarks.timed_engine import TimedEngine

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.scoring import score_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringLoad:
    """A number of texts that are scored at the same time."""

    num_texts: int
    num_tokens: int
    """Tokens of each text, including the one before the first scored token."""
    first_scored: int | None
    """Index of the first scored token; None: no token is scored."""

    @property
    def num_scored(self) -> int:
        return 0 if self.first_scored is None else self.num_texts * (self.num_tokens - self.first_scored)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRun:
    """Results of a load. Rates are in tokens per second. Except for the head's, they include tokens without a score."""

    engine_rate: float
    roof: float
    """The limit: body and LM head only."""
    body_rate: float
    head_rate: float | None
    """The LM head's rate, of scored tokens."""

    @property
    def share_of_roof(self) -> float:
        return self.engine_rate / self.roof


class ScoringEngine(TimedEngine):
    """Owns an engine that scores. For use by one thread."""

    def score(self, load: ScoringLoad) -> ScoringRun:
        """Run the load through the engine, including perplexities."""
        self._steps.clear()
        for request in self._requests(load):
            self._engine.add(request, submitted_s=time.monotonic())
        num_scored = 0
        begin_s = time.perf_counter()
        while self._engine.has_work:
            for deltas in self._engine.step().deltas.values():
                for delta in deltas:
                    score = score_of(delta.prompt_logprobs or (), self._engine.tokenizer.token_bytes)
                    num_scored += score.num_tokens
        engine_s = time.perf_counter() - begin_s
        assert num_scored == load.num_scored
        forward_s, body_s = self._replay(), self._replay(has_head=False)
        head_s = forward_s - body_s
        num_tokens = load.num_texts * load.num_tokens
        return ScoringRun(
            engine_rate=num_tokens / engine_s,
            roof=num_tokens / forward_s,
            body_rate=num_tokens / body_s,
            head_rate=load.num_scored / head_s if load.num_scored else None,
        )

    def _requests(self, load: ScoringLoad) -> list[GenerationRequest]:
        is_scored = load.first_scored is not None
        params = SamplingParams(
            max_tokens=0, num_prompt_logprobs=1 if is_scored else None, first_scored_token=load.first_scored or 1
        )
        # Other tokens in every run, so that the prefix cache has none of them.
        prompts = self._random.integers(0, self._engine.config.vocab_size - 1, (load.num_texts, load.num_tokens))
        return [
            GenerationRequest(request_id=str(index), prompt_token_ids=tuple(prompt), params=params, is_streamed=False)
            for index, prompt in enumerate(prompts.tolist())
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each text")
    parser.add_argument("--max-step-tokens", type=int, default=256, help="the setting's default")
    parser.add_argument("--threads", type=int, help="default: as in `serve`")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("scoring", machine)
    engine = ScoringEngine(
        prepare_model_folder(args.model),
        precision=args.precision,
        num_threads=args.threads,
        cache_folder=COMPILED,
        max_step_tokens=args.max_step_tokens,
    )
    loads = {
        "texts": ScoringLoad(num_texts=args.texts, num_tokens=args.tokens, first_scored=1),
        "pairs, half scored": ScoringLoad(num_texts=args.texts, num_tokens=args.tokens, first_scored=args.tokens // 2),
        "prefill alone": ScoringLoad(num_texts=args.texts, num_tokens=args.tokens, first_scored=None),
    }
    for load in loads.values():
        engine.score(load)  # the kernels prepare for each number of rows
    results = repeat_interleaved({name: partial(engine.score, load) for name, load in loads.items()}, args.repeats)
    engine.close()
    what = f"{args.texts} texts of {args.tokens} tokens, steps of {args.max_step_tokens}"
    print(f"\n{args.precision}, {what}; tokens/s, median (range) of {args.repeats}\n")
    print_runs(results)
    write_json("scoring", machine, {"arguments": vars(args), "results": results})


def print_runs(results: dict[str, list[ScoringRun]]) -> None:
    header = ["", "engine", "roof", "share", "body alone", "LM head alone"]
    rows = []
    for name, runs in results.items():
        head_rates = [run.head_rate for run in runs if run.head_rate is not None]
        rows.append(
            [
                name,
                f"{Spread.of([run.engine_rate for run in runs]):.0f}",
                f"{Spread.of([run.roof for run in runs]):.0f}",
                f"{Spread.of([100 * run.share_of_roof for run in runs]):.0f} %",
                f"{Spread.of([run.body_rate for run in runs]):.0f}",
                f"{Spread.of(head_rates):.0f}" if head_rates else "-",
            ]
        )
    print_table(header, rows)


if __name__ == "__main__":
    main()
