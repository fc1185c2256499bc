"""Sparse edits of a row of logits, in place, before temperature and truncation: only the rows that ask for them pay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow


def process_logits(logits: NDArray[np.float32], row: PlanRow, *, eos_token_id: int | None) -> None:
    """Apply the logits processors of `row.params` to `logits` (V,), in the order of `SamplingParams`."""
    params = row.params
    tokens = np.array(row.token_ids, dtype=np.int64)  # (L,)
    completion = tokens[row.num_prompt_tokens :]
    if params.logit_bias:
        _add_bias(logits, params.logit_bias)
    if len(completion) < params.min_tokens:
        _ban_endings(logits, params, eos_token_id)
    if params.no_repeat_ngram_size:
        logits[repeating_tokens(tokens, params.no_repeat_ngram_size)] = -np.inf
    if params.repetition_penalty != 1.0:
        _penalise_repetition(logits, tokens, params.repetition_penalty)
    if (params.presence_penalty or params.frequency_penalty) and len(completion):
        token_ids, counts = np.unique(completion, return_counts=True)
        logits[token_ids] -= (params.presence_penalty + params.frequency_penalty * counts).astype(np.float32)


def repeating_tokens(tokens: NDArray[np.int64], ngram_size: int) -> NDArray[np.int64]:
    """Tokens that would complete an n-gram that `tokens` (L,) has already, as in transformers' NoRepeatNGram.

    They are those that followed an earlier occurrence of the last `ngram_size` - 1 tokens.
    """
    num_ngrams = len(tokens) - ngram_size + 1
    if num_ngrams <= 0:
        return tokens[:0]
    starts = np.arange(num_ngrams)
    for offset, token_id in enumerate(tokens[num_ngrams:]):  # the last n - 1 tokens
        starts = starts[tokens[starts + offset] == token_id]
        if not len(starts):
            break
    return tokens[starts + ngram_size - 1]


def _add_bias(logits: NDArray[np.float32], logit_bias: Sequence[tuple[int, float]]) -> None:
    token_ids = np.array([token_id for token_id, _ in logit_bias], dtype=np.int64)
    np.add.at(logits, token_ids, np.array([bias for _, bias in logit_bias], dtype=np.float32))


def _ban_endings(logits: NDArray[np.float32], params: SamplingParams, eos_token_id: int | None) -> None:
    logits[list(params.stop_token_ids)] = -np.inf
    if eos_token_id is not None and not params.ignore_eos:
        logits[eos_token_id] = -np.inf


def _penalise_repetition(logits: NDArray[np.float32], tokens: NDArray[np.int64], penalty: float) -> None:
    seen = logits[tokens]
    # A token that occurs twice is gathered twice before either is written: it is penalised once.
    logits[tokens] = np.where(seen > 0, seen / np.float32(penalty), seen * np.float32(penalty))
