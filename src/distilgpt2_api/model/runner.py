"""Runs a step plan: lays the rows out, runs the forward pass, samples and scores."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from distilgpt2_api.core.config import EngineConfig, ModelConfig
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, StepResult
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.drafts import join_drafts, split_drafts
from distilgpt2_api.model.kernels.draws import DrawBatch, scoring_draws
from distilgpt2_api.model.kernels.forward_pass import ForwardPass
from distilgpt2_api.model.memory_check import exhaustion_in_one_line
from distilgpt2_api.model.sampling.sampler import Sampler
from distilgpt2_api.model.step_inputs import lay_out
from distilgpt2_api.model.weights.compiled_cache import load_weights

MAX_EDITED_ROWS = 64
"""Rows of logits that are handed over at a time: bounds their memory (12.9 MB for GPT-2's vocabulary)."""


class Runner:
    """Owns the compiled model and its KV cache. One thread may call `run`, which releases the GIL while kernels run."""

    def __init__(self, config: ModelConfig, forward_pass: ForwardPass, sampler: Sampler) -> None:
        self.config = config
        self._forward_pass: ForwardPass | None = forward_pass
        self._sampler = sampler

    @classmethod
    def load(
        cls,
        folder: Path,
        config: EngineConfig,
        *,
        model_config: ModelConfig | None = None,
        num_blocks: int,
        cache_folder: Path | None,
        report: Callable[[str], None],
    ) -> Self:
        """Reads, checks and warms up the model in `folder`. Raises ModelError.

        `model_config` is read here if it is None. `cache_folder` keeps the weights in the form of `config.precision`,
        so that the next start is fast; None keeps nothing. `report` gets each line for the log.
        """
        model = model_config or read_model_config(folder)
        with exhaustion_in_one_line(folder):
            weights = load_weights(folder, model, precision=config.precision, cache_folder=cache_folder, report=report)
            forward_pass = ForwardPass(
                model,
                weights,
                precision=config.precision,
                num_threads=config.num_threads,
                num_blocks=num_blocks,
                target=config.kernels,
            )
            sampler = Sampler(forward_pass.engine, eos_token_ids=model.eos_token_ids)
            runner = cls(model, forward_pass, sampler)
            if not runner._warm_up():
                raise ModelFormatError(
                    f"{folder}: the model computes NaN or infinity: its weights are finite, but broken"
                )
        return runner

    def run(self, plan: StepPlan) -> StepResult:
        """Computes every row's new tokens; samples and scores if the row asks for it. Results are in row order."""
        if not plan.num_draft_tokens:
            return StepResult(rows=self._run_rows(plan.rows))
        return StepResult(rows=join_drafts(plan.rows, self._run_rows(split_drafts(plan.rows))))

    def close(self) -> None:
        """Frees the model, its cache and its threads. Idempotent."""
        if self._forward_pass is not None:
            self._forward_pass.close()
        self._forward_pass = None

    def _run_rows(self, rows: Sequence[PlanRow]) -> list[RowResult]:
        assert self._forward_pass is not None, "the runner is closed"
        results: list[RowResult] = []
        for part in _split_edited(rows):
            results += self._sampler.step(lay_out(part), part)
        return results

    def _warm_up(self) -> bool:
        """Runs one token, so that memory is there before the first request. False if a logit is NaN or infinite.

        It writes to block 0; the first sequence that gets this block overwrites it.
        """
        row = PlanRow(
            sequence_id=0,
            token_ids=[0],
            num_prompt_tokens=1,
            num_computed_tokens=0,
            num_new_tokens=1,
            block_ids=[0],
            params=SamplingParams(temperature=0.0),
            seed=0,
            is_sampling=True,
        )
        assert self._forward_pass is not None, "the runner is closed"
        draws = DrawBatch(scoring_draws([0], [0], [0], vocab_size=self.config.vocab_size), num_edited=1)
        logits = self._forward_pass.engine.step(lay_out([row]), draws)
        return bool(np.isfinite(logits).all())


def _split_edited(rows: Sequence[PlanRow]) -> Iterator[Sequence[PlanRow]]:
    """Parts of at most `MAX_EDITED_ROWS` rows whose logits are edited."""
    begin = num_edited = 0
    for index, row in enumerate(rows):
        if row.is_sampling and row.params.has_logits_processors:
            if num_edited == MAX_EDITED_ROWS:
                yield rows[begin:index]
                begin, num_edited = index, 0
            num_edited += 1
    yield rows[begin:]
