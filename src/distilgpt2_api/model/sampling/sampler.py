"""Samples a token for each row of a step, all rows at once, each with its own sampling parameters."""

from collections.abc import Sequence
from operator import is_

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import GenerationError
from distilgpt2_api.core.plan import NOTHING_TO_DRAW, PlanRow, RowResult, TokenLogprobs
from distilgpt2_api.model.sampling.categorical import sample_categorical
from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.log_probabilities import TokenScorer, score_tokens
from distilgpt2_api.model.sampling.random_numbers import make_keys
from distilgpt2_api.model.sampling.rules import SamplingRules
from distilgpt2_api.model.sampling.truncated import sample_truncated


class Sampler:
    """Samples tokens and scores them. Caches the last step's rules, because consecutive decode steps have the same
    rows. A step of many rows is sampled in portions, each with its own rules.

    A row's token depends only on its logits, parameters, seed and position, not on other rows.
    """

    def __init__(self, *, vocab_size: int, eos_token_ids: Sequence[int] = (), num_threads: int = 1) -> None:
        """`num_threads` is for `score`; `sample` has too few rows for more than one."""
        self._scorer = TokenScorer(num_threads=num_threads)
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._rules: list[SamplingRules] = []
        """By portion. If a portion's rows change, the rules of later portions are dropped, since their rows have moved.
        """

    def sample(self, logits: NDArray[np.float32], rows: Sequence[PlanRow], *, portion: int = 0) -> list[RowResult]:
        """Sample a token for each row. `logits` (R, V), C-contiguous and writable, are edited in place.

        `portion`: the index of this portion in the step. A row gets an `error` if its logits have NaN or only -inf, or
        if its grammar can't compute a mask; the other rows are not affected.
        """
        assert logits.shape == (len(rows), self._vocab_size)
        assert logits.flags.c_contiguous
        if not rows:
            return []
        rules = self._find_rules(rows, portion)
        unprocessed, failures = self._process(rules, logits, rows)
        token_ids, largest = self._sample_rows(rules, logits, rows)
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

    def _find_rules(self, rows: Sequence[PlanRow], portion: int) -> SamplingRules:
        """The previous step's rules if the portion has the same rows, else new ones."""
        params, seeds = [row.params for row in rows], [row.seed for row in rows]
        if portion < len(self._rules):
            last = self._rules[portion]
            # By identity: equal parameters may have 50 000 biases to compare.
            if seeds == last.seeds and all(map(is_, params, last.params)):
                return last
        rules = SamplingRules.of(params, seeds, vocab_size=self._vocab_size, eos_token_ids=self._eos_token_ids)
        self._rules[portion:] = [rules]
        return rules

    def _process(
        self, rules: SamplingRules, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> tuple[dict[int, NDArray[np.float32]], dict[int, GenerationError]]:
        """Run the logits processors. Returns copies of the original rows that log-probabilities need, and failures by
        row.
        """
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

    def _sample_rows(
        self, rules: SamplingRules, logits: NDArray[np.float32], rows: Sequence[PlanRow]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Token ids and largest logits, (R,) each. If a largest logit isn't finite, its token id is meaningless."""
        token_ids = np.zeros(len(rows), dtype=np.int64)
        largest = np.empty(len(rows), dtype=np.float32)
        if len(rules.greedy):
            taken = _take_rows(logits, rules.greedy)
            token_ids[rules.greedy] = likeliest = taken.argmax(axis=1)  # the first NaN, if there is one
            largest[rules.greedy] = taken[np.arange(len(taken)), likeliest]
        for indices, columns, sample in (
            (rules.full, rules.full_columns, sample_categorical),
            (rules.truncated, rules.truncated_columns, sample_truncated),
        ):
            if len(indices):
                maxima = GroupMaxima.of(_take_rows(logits, indices))
                largest[indices] = maxima.of_rows
                fine = np.flatnonzero(np.isfinite(maxima.of_rows))
                if len(fine):
                    chosen = indices[fine]
                    row_columns = columns.take_rows(fine)
                    keys = make_keys(row_columns.streams, [len(rows[index].token_ids) for index in chosen.tolist()])
                    token_ids[chosen] = sample(maxima.take_rows(fine), row_columns, keys)
        return token_ids, largest

    def _add_logprobs(
        self, rules: SamplingRules, results: Sequence[RowResult], logits: NDArray[np.float32], rows: Sequence[PlanRow]
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
    """`logits[rows]`, without a copy if these are all rows."""
    return logits if len(rows) == len(logits) else logits[rows]


def _describe(largest_logit: float) -> str:
    return NOTHING_TO_DRAW if largest_logit == -np.inf else "the model's logits are not numbers"
