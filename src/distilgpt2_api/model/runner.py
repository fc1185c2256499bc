"""Runs a step plan: lays the rows out, runs the forward pass, samples and scores."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import EngineConfig, ModelConfig
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, StepPlan, StepResult, TokenLogprobs
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.drafts import join_drafts, split_drafts
from distilgpt2_api.model.kernels.forward_pass import ForwardPass
from distilgpt2_api.model.memory_check import exhaustion_in_one_line
from distilgpt2_api.model.sampling.sampler import Sampler
from distilgpt2_api.model.step_inputs import lay_out
from distilgpt2_api.model.weights.compiled_cache import load_weights

HEAD_ROWS = 64
"""Rows of logits computed at a time: bounds their memory (12.9 MB for GPT-2's vocabulary). More is not faster."""


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
            sampler = Sampler(
                vocab_size=model.vocab_size, eos_token_ids=model.eos_token_ids, num_threads=config.num_threads
            )
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
        inputs = lay_out(rows)
        hidden = self._forward_pass.hidden_states(inputs)  # (T, C)
        results = [RowResult() for _ in rows]
        sampling = [index for index, row in enumerate(rows) if row.is_sampling]
        last_positions = inputs.token_begins[1:][sampling] - 1
        for start, logits in self._portions(hidden, last_positions):
            indices = sampling[start : start + len(logits)]
            drawn = self._sampler.sample(logits, [rows[index] for index in indices], portion=start // HEAD_ROWS)
            for index, result in zip(indices, drawn, strict=True):
                results[index] = result
        self._score(hidden, inputs.token_begins, rows, results)
        return results

    def _score(
        self, hidden: NDArray[np.float32], begins: NDArray[np.int32], rows: Sequence[PlanRow], results: list[RowResult]
    ) -> None:
        """Scores the prompt tokens that follow the rows' new tokens. The last token of a chunk scores the next one's
        first.

        All rows together, because the LM head reads all of its weights even for a single position.
        """
        for num_top in {row.num_prompt_logprobs for row in rows if row.num_prompt_logprobs is not None}:
            positions: list[int] = []
            targets: list[int] = []
            ends: dict[int, int] = {}
            for index, row in enumerate(rows):
                if row.num_prompt_logprobs == num_top:
                    first = row.num_computed_tokens
                    last = min(first + row.num_new_tokens, row.num_prompt_tokens - 1)
                    positions += range(begins[index], begins[index] + last - first)
                    targets += row.token_ids[first + 1 : last + 1]
                    ends[index] = len(targets)
            scores: list[TokenLogprobs] = []
            for start, logits in self._portions(hidden, np.array(positions)):
                scores += self._sampler.score(logits, targets[start : start + len(logits)], num_top)
            start = 0
            for index, end in ends.items():
                results[index].prompt_logprobs = scores[start:end]
                start = end

    def _portions(
        self, hidden: NDArray[np.float32], positions: NDArray[np.integer]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Logits of the hidden states at `positions`, in portions of `HEAD_ROWS`, each with its start index."""
        assert self._forward_pass is not None, "the runner is closed"
        for start in range(0, len(positions), HEAD_ROWS):
            portion = positions[start : start + HEAD_ROWS]
            # In a step of decodes alone these are all tokens, in order: no copy.
            chosen = hidden if len(portion) == len(hidden) else hidden[portion]
            yield start, self._forward_pass.logits(chosen)

    def _warm_up(self) -> bool:
        """Runs one token, so that kernels are compiled and weights packed before the first request. False if a logit is
        NaN or infinite.

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
        self.run(StepPlan(rows=[row]))
        assert self._forward_pass is not None, "the runner is closed"
        logits = self._forward_pass.logits(self._forward_pass.hidden_states(lay_out([row])))
        return bool(np.isfinite(logits).all())
