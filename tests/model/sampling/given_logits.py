"""Kernels that compute no model: a step's logits are given. They draw as the real ones, because they are these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, TokenLogprobs
from distilgpt2_api.model.kernels.draws import DrawBatch
from distilgpt2_api.model.kernels.kernel_engine import KernelEngine
from distilgpt2_api.model.kernels.structures import Model
from distilgpt2_api.model.sampling.sampler import Sampler
from distilgpt2_api.model.step_inputs import StepInputs, lay_out


class GivenLogits(KernelEngine):
    """Each computed token has a row of `logits` (T, V), which edits change in place."""

    def __init__(self, logits: NDArray[np.float32], *, num_threads: int = 1) -> None:
        super().__init__(Model(vocab_size=logits.shape[1]), num_threads=num_threads)
        self.logits = logits
        self.edited = logits[:0]

    def step(self, inputs: StepInputs, draws: DrawBatch) -> NDArray[np.float32]:
        assert inputs.num_tokens == len(self.logits)
        tokens = draws.find_tokens(inputs.token_begins)
        draws.positions[:] = np.array(inputs.position_ids)[tokens] + 1
        ordered = self.logits[tokens]
        self.draw(draws, ordered, ordered)
        self.edited = ordered[: draws.num_edited]
        return self.edited


def sample(
    logits: NDArray[np.float32], rows: Sequence[PlanRow], *, eos_token_ids: Sequence[int] = (), num_threads: int = 1
) -> list[RowResult]:
    """Results of `rows` of one new token each, from their logits (R, V)."""
    kernels = GivenLogits(logits, num_threads=num_threads)
    results = Sampler(kernels, eos_token_ids=eos_token_ids).step(lay_out(rows), rows)
    kernels.close()
    return results


def score(
    logits: NDArray[np.float32], target_ids: Sequence[int], num_top: int, *, num_threads: int = 1
) -> Sequence[TokenLogprobs]:
    """Log-probabilities of `target_ids[i]` and of the likeliest tokens under row i of `logits` (R, V)."""
    row = PlanRow(
        sequence_id=0,
        token_ids=[0, *target_ids, 0],
        num_prompt_tokens=len(target_ids) + 2,
        num_computed_tokens=0,
        num_new_tokens=len(target_ids),
        block_ids=[0],
        params=SamplingParams(),
        seed=0,
        is_sampling=False,
        num_prompt_logprobs=num_top,
    )
    kernels = GivenLogits(logits, num_threads=num_threads)
    (result,) = Sampler(kernels).step(lay_out([row]), [row])
    kernels.close()
    return result.prompt_logprobs
