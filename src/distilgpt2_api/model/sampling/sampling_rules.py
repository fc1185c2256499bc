"""How the rows of a step are sampled: their draws, and which of them logits processors edit first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.kernels.draws import DrawBatch, sampling_draws
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """The rules of R rows. The draws' results and positions belong to the last step that used them."""

    params: Sequence[SamplingParams]
    """One for each row, as in `seeds`."""
    seeds: Sequence[int]
    order: NDArray[np.intp]
    """Rows by draw: the edited ones first."""
    edited: Sequence[int]
    """Rows with logits processors. Rows with a grammar are last: their masks may still be computed."""
    processors: Sequence[LogitsProcessors]
    """One for each edited row."""
    draws: DrawBatch
    edited_draws: DrawBatch

    @classmethod
    def of(
        cls, params: Sequence[SamplingParams], seeds: Sequence[int], *, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> Self:
        edited = [row for row, one in enumerate(params) if one.has_logits_processors]
        edited.sort(key=lambda row: params[row].grammar is not None)
        order = [*edited, *(row for row, one in enumerate(params) if not one.has_logits_processors)]
        draws = sampling_draws([params[row] for row in order], [seeds[row] for row in order], vocab_size=vocab_size)
        return cls(
            params=params,
            seeds=seeds,
            order=np.array(order, dtype=np.intp),
            edited=edited,
            processors=[LogitsProcessors.of(params[row], eos_token_ids=eos_token_ids) for row in edited],
            draws=DrawBatch(draws, num_edited=len(edited)),
            edited_draws=DrawBatch(draws[: len(edited)].copy()),
        )

    def are_of(self, rows: Sequence[PlanRow]) -> bool:
        """Whether `rows` have these parameters and seeds. By identity: equal parameters may have 50 000 biases."""
        return [row.seed for row in rows] == self.seeds and all(map(is_, [row.params for row in rows], self.params))
