"""Log-probabilities of tokens under the model's own distribution."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.model.sampling.group_maxima import GroupMaxima
from distilgpt2_api.model.sampling.numerics import sum_exponentials
from distilgpt2_api.model.sampling.top_candidates import find_candidates

MIN_ROWS_APART = 8
"""Rows that are worth a thread: one row of GPT-2's vocabulary takes 50 µs."""


class TokenScorer:
    """`score_tokens` on all cores, which are idle between two kernel calls: on two cores the engine scored 5 % more
    tokens per second. Owns its threads, which start with the first call that has enough rows, and end with the scorer.
    """

    def __init__(self, *, num_threads: int) -> None:
        self._num_threads = num_threads
        self._others = ThreadPoolExecutor(num_threads - 1, "score") if num_threads > 1 else None

    def score(
        self, logits: NDArray[np.float32], token_ids: Sequence[int], nums_top: Sequence[int]
    ) -> list[TokenLogprobs]:
        """As `score_tokens`; a row's scores don't depend on the thread that computes them."""
        num_parts = min(self._num_threads, len(logits) // MIN_ROWS_APART)
        if self._others is None or num_parts < 2:
            return score_tokens(logits, token_ids, nums_top)
        bounds = pairwise(len(logits) * part // num_parts for part in range(num_parts + 1))
        first, *rest = ((logits[i:j], token_ids[i:j], nums_top[i:j]) for i, j in bounds)
        running = [self._others.submit(score_tokens, *part) for part in rest]
        scores = score_tokens(*first)
        for part in running:
            scores += part.result()
        return scores


def score_tokens(logits: NDArray[np.float32], token_ids: Sequence[int], nums_top: Sequence[int]) -> list[TokenLogprobs]:
    """For each row of raw `logits` (R, V): log-probabilities of `token_ids[i]` and of the `nums_top[i]` likeliest
    tokens.

    Equal logits of a row give the same float in both.
    """
    num_rows = len(logits)
    if not num_rows:
        return []
    rows = np.arange(num_rows)
    if (num_top := max(nums_top)) > 1:
        maxima = GroupMaxima.of(logits)
        candidates = find_candidates(maxima, num_top)
        largest, top_ids, top_logits = maxima.of_rows, candidates.token_ids, candidates.logits
    else:  # twice as fast; among equals it also takes the lowest id
        likeliest = logits.argmax(axis=1)
        largest = logits[rows, likeliest]
        top_ids, top_logits = likeliest[:, None], largest[:, None]
    denominators = largest + np.log(sum_exponentials(logits, largest, np.ones(num_rows)))  # (R,), float64
    logprobs = (logits[rows, token_ids] - denominators).tolist()
    tops = _list_tops(top_ids, top_logits - denominators[:, None], nums_top) if num_top else iter([()] * num_rows)
    return [
        TokenLogprobs(token_id=token_id, logprob=logprob, top=top)
        for token_id, logprob, top in zip(token_ids, logprobs, tops, strict=True)
    ]


def _list_tops(
    token_ids: NDArray[np.int64], logprobs: NDArray[np.floating], nums_top: Sequence[int]
) -> Iterator[tuple[tuple[int, float], ...]]:
    for ids, values, num_top in zip(token_ids.tolist(), logprobs.tolist(), nums_top, strict=True):
        yield tuple(zip(ids[:num_top], values[:num_top], strict=True))
