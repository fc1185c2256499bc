"""Log-probabilities of tokens under the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.model.candidates import find_candidates
from distilgpt2_api.model.exponential_sums import sum_exponentials
from distilgpt2_api.model.group_maxima import GroupMaxima


def score_tokens(logits: NDArray[np.float32], token_ids: Sequence[int], nums_top: Sequence[int]) -> list[TokenLogprobs]:
    """One for each row of raw `logits` (R, V): of `token_ids[i]`, and of the `nums_top[i]` likeliest tokens.

    The same logit and the same denominator give the same float, wherever a token is listed.
    """
    if not len(logits):
        return []
    maxima = GroupMaxima.of(logits)
    totals = sum_exponentials(logits, maxima.of_rows, np.ones(len(logits)))
    denominators = maxima.of_rows + np.log(totals)  # (R,), float64
    logprobs = (logits[np.arange(len(logits)), token_ids] - denominators).tolist()
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(logits)
    if max(nums_top):
        candidates = find_candidates(maxima, max(nums_top))
        top_ids = candidates.token_ids.tolist()
        top_logprobs = (candidates.logits - denominators[:, None]).tolist()
        tops = [
            tuple(zip(ids[:num_top], values[:num_top], strict=True))
            for ids, values, num_top in zip(top_ids, top_logprobs, nums_top, strict=True)
        ]
    return [
        TokenLogprobs(token_id=token_id, logprob=logprob, top=top)
        for token_id, logprob, top in zip(token_ids, logprobs, tops, strict=True)
    ]
