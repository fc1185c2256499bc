"""From logits to tokens: each row of a step with its own sampling parameters, all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import GenerationError
from distilgpt2_api.core.plan import NOTHING_TO_DRAW, PlanRow, RowResult, TokenLogprobs
from distilgpt2_api.model.sampling.categorical import draw_full
from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.log_probabilities import TokenScorer, score_tokens
from distilgpt2_api.model.sampling.random_numbers import make_keys
from distilgpt2_api.model.sampling.rules import DrawRules
from distilgpt2_api.model.sampling.truncated import draw_truncated


class Sampler:
    """Draws tokens and scores them. Keeps the last step's rules, for decode steps follow each other with the same rows:
    those of each portion of rows, for a step of many rows is drawn in portions.

    A row's draw depends on its logits, parameters, seed and position only, not on the rows beside it.
    """

    def __init__(self, *, vocab_size: int, eos_token_ids: Sequence[int] = (), num_threads: int = 1) -> None:
        """`num_threads`: of `score`; a step that draws has too few rows for more than one."""
        self._scorer = TokenScorer(num_threads=num_threads)
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._rules: list[DrawRules] = []
        """By portion. Rules after a portion that has changed are dropped: its rows have moved those behind it."""

    def sample(self, logits: NDArray[np.float32], rows: Sequence[PlanRow], *, portion: int = 0) -> list[RowResult]:
        """Draw a token for each row. `logits` (R, V), C-contiguous and writable, are edited in place.

        `portion`: which one of the step's portions this is, in order.
        A row whose logits hold NaN, or nothing to draw, or whose grammar has no mask to give gets an `error`, and
        leaves the others alone.
        """
        assert logits.shape == (len(rows), self._vocab_size)
        assert logits.flags.c_contiguous
        if not rows:
            return []
        rules = self._find_rules(rows, portion)
        unprocessed, failures = self._process(rules, logits, rows)
        token_ids, largest = self._draw(rules, logits, rows)
        results = [
            RowResult(token_id=token_id) if is_finite else RowResult(error=_describe(value))
            for token_id, is_finite, value in zip(
                token_ids.tolist(), np.isfinite(largest).tolist(), largest.tolist(), strict=True
            )
        ]
        for index, failure in failures.items():
            results[index] = RowResult(error=str(failure))
        for index, raw in unprocessed.items():
            logits[index] = raw
        self._add_logprobs(rules, results, logits, rows)
        return results

    def score(self, logits: NDArray[np.float32], target_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
        """Log-probabilities of `target_ids[i]` and of the `num_top` likeliest tokens under row i of `logits` (R, V)."""
        return self._scorer.score(logits, target_ids, [num_top] * len(target_ids))

    def _find_rules(self, rows: Sequence[PlanRow], portion: int) -> DrawRules:
        """Those of the step before, if its portion had the same rows."""
        params, seeds = [row.params for row in rows], [row.seed for row in rows]
        if portion < len(self._rules):
            last = self._rules[portion]
            # By identity: equal parameters may have 50 000 biases to compare.
            if seeds == last.seeds and all(map(is_, params, last.params)):
                return last
        rules = DrawRules.of(params, seeds, vocab_size=self._vocab_size, eos_token_ids=self._eos_token_ids)
        self._rules[portion:] = [rules]
        return rules

    def _process(
        self, rules: DrawRules, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> tuple[dict[int, NDArray[np.float32]], dict[int, GenerationError]]:
        """Run the logits processors: rows as they were, where log-probabilities will ask for them; and who failed."""
        unprocessed = {}
        failures = {}
        for index, processors in rules.processed:
            row = rows[index]
            if row.params.num_logprobs is not None:
                unprocessed[index] = logits[index].copy()
            try:
                processors.apply(logits[index], row)
            except GenerationError as error:
                failures[index] = error
        return unprocessed, failures

    def _draw(
        self, rules: DrawRules, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Token ids and largest logits, (R,) each; where the latter isn't finite the former is meaningless."""
        token_ids = np.zeros(len(rows), dtype=np.int64)
        largest = np.empty(len(rows), dtype=np.float32)
        if len(rules.greedy):
            taken = _take_rows(logits, rules.greedy)
            token_ids[rules.greedy] = likeliest = taken.argmax(axis=1)  # the first NaN, if there is one
            largest[rules.greedy] = taken[np.arange(len(taken)), likeliest]
        for indices, table, draw in (
            (rules.full, rules.full_table, draw_full),
            (rules.truncated, rules.truncated_table, draw_truncated),
        ):
            if len(indices):
                maxima = GroupMaxima.of(_take_rows(logits, indices))
                largest[indices] = maxima.of_rows
                fine = np.flatnonzero(np.isfinite(maxima.of_rows))
                if len(fine):
                    chosen = indices[fine]
                    drawing = table.take_rows(fine)
                    keys = make_keys(drawing.streams, [len(rows[index].token_ids) for index in chosen.tolist()])
                    token_ids[chosen] = draw(maxima.take_rows(fine), drawing, keys)
        return token_ids, largest

    def _add_logprobs(
        self, rules: DrawRules, results: Sequence[RowResult], logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> None:
        asking = [
            (index, token_id, rows[index].params.num_logprobs)
            for index in rules.scored
            if (token_id := results[index].token_id) is not None
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
    return NOTHING_TO_DRAW if largest_logit == -np.inf else "the model's logits are not numbers"
