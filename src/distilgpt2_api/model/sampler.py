"""From logits to tokens: each row of a step with its own sampling parameters, all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult, TokenLogprobs
from distilgpt2_api.model.draw_table import DrawTable
from distilgpt2_api.model.full_draws import draw_full
from distilgpt2_api.model.group_maxima import GroupMaxima
from distilgpt2_api.model.log_probabilities import score_tokens
from distilgpt2_api.model.logits_processors import process_logits
from distilgpt2_api.model.truncated_draws import draw_truncated


class _Kind(IntEnum):
    GREEDY = 0
    FULL = 1
    """From the whole distribution."""
    TRUNCATED = 2


class Sampler:
    """Draws tokens and scores them. It keeps nothing between calls.

    A row's draw depends on its logits, parameters, seed and position only, not on the rows beside it.
    """

    def __init__(self, *, vocab_size: int, eos_token_id: int | None = None) -> None:
        self._vocab_size = vocab_size
        self._eos_token_id = eos_token_id

    def sample(self, logits: NDArray[np.float32], rows: Sequence[PlanRow]) -> list[RowResult]:
        """Draw a token for each row. `logits` (R, V), C-contiguous and writable, are edited in place.

        A row whose logits hold NaN, or nothing to draw, gets an `error` and leaves the others alone.
        """
        assert logits.shape == (len(rows), self._vocab_size)
        assert logits.flags.c_contiguous
        if not rows:
            return []
        unprocessed = self._process(logits, rows)
        token_ids, largest = self._draw(logits, rows)
        results = [
            RowResult(token_id=token_id) if is_finite else RowResult(error=_describe(value))
            for token_id, is_finite, value in zip(
                token_ids.tolist(), np.isfinite(largest).tolist(), largest.tolist(), strict=True
            )
        ]
        for index, raw in unprocessed.items():
            logits[index] = raw
        self._add_logprobs(results, logits, rows)
        return results

    def score(self, logits: NDArray[np.float32], target_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
        """Log-probabilities of `target_ids[i]` and of the `num_top` likeliest tokens under row i of `logits` (R, V)."""
        return score_tokens(logits, target_ids, [num_top] * len(target_ids))

    def _process(self, logits: NDArray[np.float32], rows: Sequence[PlanRow]) -> dict[int, NDArray[np.float32]]:
        """Run the logits processors; returns the rows as they were, where log-probabilities will ask for them."""
        unprocessed = {}
        for index, row in enumerate(rows):
            if row.params.has_logits_processors:
                if row.params.num_logprobs is not None:
                    unprocessed[index] = logits[index].copy()
                process_logits(logits[index], row, eos_token_id=self._eos_token_id)
        return unprocessed

    def _draw(
        self, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Token ids and largest logits, (R,) each; where the latter isn't finite the former is meaningless."""
        kinds = np.array([self._kind(row.params) for row in rows])
        greedy, drawn = np.flatnonzero(kinds == _Kind.GREEDY), np.flatnonzero(kinds != _Kind.GREEDY)
        token_ids = np.zeros(len(rows), dtype=np.int64)
        largest = np.empty(len(rows), dtype=np.float32)
        if len(greedy):
            taken = _take_rows(logits, greedy)
            token_ids[greedy] = likeliest = taken.argmax(axis=1)  # the first NaN, if there is one
            largest[greedy] = taken[np.arange(len(taken)), likeliest]
        if len(drawn):
            maxima = GroupMaxima.of(_take_rows(logits, drawn))
            largest[drawn] = maxima.of_rows
            for kind, draw in ((_Kind.FULL, draw_full), (_Kind.TRUNCATED, draw_truncated)):
                chosen = np.flatnonzero((kinds[drawn] == kind) & np.isfinite(maxima.of_rows))
                if len(chosen):
                    indices = drawn[chosen]
                    table = DrawTable.of([rows[index] for index in indices.tolist()], self._vocab_size)
                    token_ids[indices] = draw(maxima.take_rows(chosen), table)
        return token_ids, largest

    def _kind(self, params: SamplingParams) -> _Kind:
        if params.is_greedy or params.top_k == 1:
            return _Kind.GREEDY
        has_top_k = 0 < params.top_k < self._vocab_size
        return _Kind.TRUNCATED if has_top_k or params.top_p < 1.0 or params.min_p > 0.0 else _Kind.FULL

    def _add_logprobs(self, results: Sequence[RowResult], logits: NDArray[np.float32], rows: Sequence[PlanRow]) -> None:
        asking = [
            (index, result.token_id, row.params.num_logprobs)
            for index, (row, result) in enumerate(zip(rows, results, strict=True))
            if row.params.num_logprobs is not None and result.token_id is not None
        ]
        if not asking:
            return
        indices, token_ids, nums_top = zip(*asking, strict=True)
        scores = score_tokens(_take_rows(logits, np.array(indices)), token_ids, nums_top)
        for index, scored in zip(indices, scores, strict=True):
            results[index].logprobs = scored


def _take_rows(logits: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Without a copy where that is all of them."""
    return logits if len(rows) == len(logits) else logits[rows]


def _describe(largest_logit: float) -> str:
    return "every token is banned" if largest_logit == -np.inf else "the model's logits are not numbers"
