"""Finds repetitions in a sequence's tokens, and penalises the tokens that would continue them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams

COMPARED_TOKENS = 32
"""Tokens of all candidates that are compared at once: few repetitions are longer."""
MAX_LOG_PENALTY = 69.0
"""The logarithm of the largest penalty per `dry_multiplier`. It bans a token; more would overflow float32."""


class SequenceBreakers:
    """Token sequences that a repetition never spans. Immutable, shared by a request's sequences."""

    def __init__(self, breakers: Iterable[tuple[int, ...]]) -> None:
        """No breaker is empty."""
        self._by_last_token: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
        for breaker in breakers:
            self._by_last_token[breaker[-1]].append(breaker)

    @staticmethod
    def of(params: SamplingParams) -> "SequenceBreakers":
        """The breakers that validation has compiled, because it knows the tokenizer."""
        return params.derive(SequenceBreakers, _fail)

    def num_tokens_after(self, token_ids: Sequence[int]) -> int:
        """Tokens after the last breaker; all of them if there is none."""
        num_tokens = len(token_ids)
        for end in range(num_tokens, 0, -1):
            for breaker in self._by_last_token.get(token_ids[end - 1], ()):
                if len(breaker) == 1 or tuple(token_ids[max(end - len(breaker), 0) : end]) == breaker:
                    return num_tokens - end
        return num_tokens

    def __contains__(self, token_id: int) -> bool:
        """Whether the token is a breaker alone."""
        return (token_id,) in self._by_last_token.get(token_id, ())


def _fail() -> SequenceBreakers:
    raise AssertionError("validation compiles the sequence breakers")


def penalise_continuations(
    logits: NDArray[np.float32], token_ids: Sequence[int], params: SamplingParams, breakers: SequenceBreakers
) -> None:
    """DRY ("don't repeat yourself", Weidmann 2024), as in llama.cpp: edits `logits` (V,) after `token_ids` (L,).

    If the last n tokens since a breaker occurred before, the logit of the token that followed them then falls by
    `dry_multiplier` · `dry_base` ^ (n - `dry_allowed_length`), for n from `dry_allowed_length`. Of several occurrences
    before one token the longest counts. Breakers are not penalised.
    """
    if params.dry_penalty_last_n >= 0:
        token_ids = token_ids[max(len(token_ids) - params.dry_penalty_last_n, 0) :]
    limit = breakers.num_tokens_after(token_ids)
    if min(limit, len(token_ids) - 1) < params.dry_allowed_length:
        return
    following, lengths = find_continuations(np.array(token_ids, dtype=np.int32), limit)
    is_long = lengths >= params.dry_allowed_length
    exponents = (lengths[is_long] - params.dry_allowed_length) * np.log(params.dry_base)
    penalties = params.dry_multiplier * np.exp(np.minimum(exponents, MAX_LOG_PENALTY))
    order = np.argsort(penalties, kind="stable")  # a token's largest penalty is its last
    largest = dict(zip(following[is_long][order].tolist(), penalties[order].tolist(), strict=True))
    for token_id, penalty in largest.items():
        if token_id not in breakers:
            logits[token_id] -= np.float32(penalty)


def find_continuations(tokens: NDArray[np.int32], limit: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Each earlier occurrence of the last token of `tokens` (L,): the token that followed it, and how many tokens up to
    it are those up to the last token, at most `limit`.
    """
    limit = min(limit, len(tokens) - 1)
    backwards = tokens[::-1]
    distances = np.flatnonzero(backwards[1:] == backwards[0]) + 1
    padded = np.concatenate([backwards, np.full(limit + COMPARED_TOKENS, -1, dtype=np.int32)])
    lengths = np.zeros(len(distances), dtype=np.int64)
    alive = np.arange(len(distances))
    for begin in range(0, limit, COMPARED_TOKENS):
        offsets = np.arange(begin, min(begin + COMPARED_TOKENS, limit))
        is_same = padded[distances[alive, None] + offsets] == backwards[offsets]  # (alive, offsets)
        num_same = np.where(is_same.all(axis=1), len(offsets), is_same.argmin(axis=1))
        lengths[alive] += num_same
        alive = alive[num_same == COMPARED_TOKENS]
        if not len(alive):
            break
    return backwards[distances - 1], lengths


def repeating_tokens(tokens: NDArray[np.int64], ngram_size: int) -> NDArray[np.int64]:
    """Tokens that would complete an n-gram that `tokens` (L,) already has, as in transformers' NoRepeatNGram.

    These tokens followed an earlier occurrence of the last `ngram_size` - 1 tokens.
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
