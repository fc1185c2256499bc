"""How the rows of a step are sampled: their draws, and which of them logits processors edit first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.kernels.draws import DrawBatch, sampling_draws
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """The rules of a step's rows. The draws' results belong to the last step that used them."""

    order: Sequence[int]
    """The row of each draw. Edited rows are first, and of these the ones with a grammar last: their masks may still be
    computed."""
    is_in_order: bool
    """Whether each row has a draw, in the order of the rows."""
    processors: Sequence[LogitsProcessors]
    """One for each edited row, in the same order."""
    mirostat: Sequence[int]
    """The draws with mirostat."""
    draws: DrawBatch
    edited_draws: DrawBatch
    """The same draws of edited rows, for the second call."""

    @classmethod
    def of(cls, rows: Sequence[PlanRow], *, vocab_size: int, eos_token_ids: Sequence[int]) -> Self:
        sampling = [index for index, row in enumerate(rows) if row.is_sampling]
        edited = [index for index in sampling if rows[index].params.has_logits_processors]
        edited.sort(key=lambda index: rows[index].params.grammar is not None)
        order = [*edited, *(index for index in sampling if not rows[index].params.has_logits_processors)]
        draws = sampling_draws(
            [rows[index].params for index in order],
            [rows[index].seed for index in order],
            order,
            vocab_size=vocab_size,
        )
        return cls(
            order=order,
            is_in_order=order == list(range(len(rows))),
            processors=[LogitsProcessors.of(rows[index].params, eos_token_ids=eos_token_ids) for index in edited],
            mirostat=[index for index, row in enumerate(order) if rows[row].params.mirostat],
            draws=DrawBatch(draws, num_edited=len(edited)),
            edited_draws=DrawBatch(draws[: len(edited)].copy()),
        )
