"""Edits a row of logits in place before a token is sampled; rows without such parameters cost nothing."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.sampling.repetition import SequenceBreakers, penalise_continuations, repeating_tokens


class LogitsProcessors:
    """A request's edits of its logits, in the order of `SamplingParams`. Immutable, shared by its sequences."""

    def __init__(self, params: SamplingParams, *, eos_token_ids: Sequence[int]) -> None:
        self._params = params
        self._biased_ids = np.array([token_id for token_id, _ in params.logit_bias], dtype=np.int64)
        self._biases = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)
        endings = {*params.stop_token_ids, *(eos_token_ids if params.is_ended_by_eos else ())}
        self._endings = np.array(sorted(endings), dtype=np.int64)
        self._bad_tokens = np.array([word[0] for word in params.bad_words if len(word) == 1], dtype=np.int64)
        self._bad_words: defaultdict[int, defaultdict[tuple[int, ...], list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )
        """By length, for words of two tokens or more: all tokens but the last → the last tokens that follow them."""
        for word in params.bad_words:
            if len(word) > 1:
                self._bad_words[len(word)][word[:-1]].append(word[-1])
        self._allowed_ids = np.array(params.allowed_token_ids, dtype=np.int64)
        self._breakers = SequenceBreakers.of(params) if params.dry_multiplier else None

    @classmethod
    def of(cls, params: SamplingParams, *, eos_token_ids: Sequence[int]) -> Self:
        """Built once for all sequences of the request."""
        return params.derive(cls, lambda: cls(params, eos_token_ids=eos_token_ids))

    def apply(self, logits: NDArray[np.float32], row: PlanRow) -> None:
        """Edit `row`'s `logits` (V,). Raises GenerationError if its grammar can't compute a mask."""
        if len(self._biases):
            np.add.at(logits, self._biased_ids, self._biases)
        self._ban(logits, row)
        self._penalise(logits, row)
        if self._breakers is not None:
            penalise_continuations(logits, row.token_ids, self._params, self._breakers)

    def _ban(self, logits: NDArray[np.float32], row: PlanRow) -> None:
        params = self._params
        if len(row.token_ids) - row.num_prompt_tokens < params.min_tokens:
            logits[self._endings] = -np.inf
        if params.no_repeat_ngram_size:
            tokens = np.array(row.token_ids, dtype=np.int64)
            logits[repeating_tokens(tokens, params.no_repeat_ngram_size)] = -np.inf
        if params.bad_words:
            logits[self._bad_tokens] = -np.inf
            logits[self._find_word_ends(row)] = -np.inf
        if params.allowed_token_ids:
            allowed = logits[self._allowed_ids]
            logits.fill(-np.inf)
            logits[self._allowed_ids] = allowed
        if row.mask is not None:
            ban_outside(logits, row.mask.wait())

    def _find_word_ends(self, row: PlanRow) -> list[int]:
        """Last tokens of the bad words of two tokens or more whose other tokens end the completion."""
        num_tokens = len(row.token_ids)
        num_drawn = num_tokens - row.num_prompt_tokens
        return [
            last
            for length, words in self._bad_words.items()
            if length - 1 <= num_drawn
            for last in words.get(tuple(row.token_ids[num_tokens - length + 1 :]), ())
        ]

    def _penalise(self, logits: NDArray[np.float32], row: PlanRow) -> None:
        params = self._params
        begin = max(len(row.token_ids) - params.repeat_last_n, 0) if params.repeat_last_n >= 0 else 0
        if params.repetition_penalty != 1.0:
            _penalise_repetition(logits, np.array(row.token_ids[begin:], dtype=np.int64), params.repetition_penalty)
        if params.presence_penalty or params.frequency_penalty:
            completion = np.array(row.token_ids[max(begin, row.num_prompt_tokens) :], dtype=np.int64)
            token_ids, counts = np.unique(completion, return_counts=True)
            logits[token_ids] -= (params.presence_penalty + params.frequency_penalty * counts).astype(np.float32)


def _penalise_repetition(logits: NDArray[np.float32], tokens: NDArray[np.int64], penalty: float) -> None:
    seen = logits[tokens]
    # A token that occurs twice is gathered twice before it is written, so it is penalised once.
    logits[tokens] = np.where(seen > 0, seen / np.float32(penalty), seen * np.float32(penalty))


def ban_outside(logits: NDArray[np.float32], mask: bytes) -> None:
    """Set to -inf the `logits` (V,) of tokens whose bit in `mask` is 0 or missing.

    See `TokenMask` for the order of the bits. Takes 12 µs for GPT-2's vocabulary, for any mask: a look-up for each byte
    and a minimum take a quarter of the time of unpacking the bits and writing under them.
    """
    limits = _LIMITS.take(np.frombuffer(mask, dtype=np.uint8)).view(np.float32)
    num_covered = min(len(limits), len(logits))
    np.minimum(logits[:num_covered], limits[:num_covered], out=logits[:num_covered])
    logits[num_covered:] = -np.inf


def _tabulate_limits() -> NDArray[np.void]:
    """For each value of a mask's byte the upper limits of its 8 tokens' logits, inf or -inf, as one item; (256,)."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")  # (256, 8)
    limits = np.where(bits == 1, np.float32(np.inf), np.float32(-np.inf))
    return limits.view(np.dtype((np.void, limits.itemsize * 8))).reshape(-1)


_LIMITS = _tabulate_limits()
