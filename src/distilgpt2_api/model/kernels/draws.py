"""The draws of a step, as the kernels read and write them: `Draw` and `Draws` of `native/model.h`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.kernels.structures import Draws

_DRAW = np.dtype(
    [
        ("top_n_sigma", np.float64),
        ("temperature", np.float64),
        ("dynatemp_range", np.float64),
        ("dynatemp_exponent", np.float64),
        ("typical_p", np.float64),
        ("top_k", np.int32),
        ("num_top", np.int32),
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("xtc_probability", np.float64),
        ("xtc_threshold", np.float64),
        ("largest_surprisal", np.float64),
        ("seed", np.uint64),
        ("position", np.int32),
        ("given", np.int32),
        ("sequence", np.int32),
        ("token", np.int32),
    ]
)
_SEED_MASK = (1 << 64) - 1


class DrawBatch:
    """N draws with memory for their results. Mutable: the kernels write the results, and a batch serves many steps."""

    def __init__(self, draws: NDArray[np.void], *, num_edited: int = 0) -> None:
        """`draws` (N,): from `sampling_draws` or `scoring_draws`. The first `num_edited` only get logits."""
        num_draws = len(draws)
        max_top = max(int(draws["num_top"].max(initial=0)), 0)
        self._draws = draws
        self.num_edited = num_edited
        self.has_logprobs = bool((draws["num_top"] >= 0).any())
        self.token_ids: NDArray[np.int32] = np.zeros(num_draws, np.int32)
        """(N,): -1 if no token can be drawn, because the largest logit isn't finite."""
        self.largest: NDArray[np.float32] = np.zeros(num_draws, np.float32)
        """(N,): logits."""
        self.surprisals: NDArray[np.float64] = np.zeros(num_draws, np.float64)
        """(N,): of the drawn tokens in bits, if the draw has `largest_surprisals`."""
        self.logprobs: NDArray[np.float64] = np.zeros(num_draws, np.float64)
        """(N,), of draws with log-probabilities."""
        self.top_ids: NDArray[np.int32] = np.zeros((num_draws, max_top), np.int32)
        self.top_logprobs: NDArray[np.float64] = np.zeros((num_draws, max_top), np.float64)
        results = (self.token_ids, self.largest, self.surprisals, self.logprobs, self.top_ids, self.top_logprobs)
        self._structure = Draws(
            num_draws, num_edited, max_top, 0, draws.ctypes.data, *(result.ctypes.data for result in results)
        )
        self.address = ctypes.addressof(self._structure)

    @property
    def sequences(self) -> NDArray[np.int32]:
        """(N,): the sequence of the step behind whose last token each draw is."""
        return self._column("sequence")

    @property
    def tokens(self) -> NDArray[np.int32]:
        """(N,): or the index in the step of the token that it is behind, unless that is -1."""
        return self._column("token")

    @property
    def positions(self) -> NDArray[np.int32]:
        """(N,): position of the drawn token in its sequence. To be set before `draw`; a step knows it itself."""
        return self._column("position")

    @property
    def largest_surprisals(self) -> NDArray[np.float64]:
        """(N,): the limit of a drawn token, in bits. To be set before a draw; infinity is off."""
        column: NDArray[np.float64] = self._draws["largest_surprisal"]
        return column

    @property
    def nums_top(self) -> NDArray[np.int32]:
        """(N,): likeliest tokens to list; -1 without log-probabilities."""
        return self._column("num_top")

    def __len__(self) -> int:
        return len(self._draws)

    def find_tokens(self, token_begins: Sequence[int]) -> list[int]:
        """The index in the step of the token that each draw is behind. `token_begins`: as in `StepInputs`."""
        last_tokens = np.array(token_begins)[1:] - 1
        tokens: list[int] = np.where(self.tokens >= 0, self.tokens, last_tokens[self.sequences]).tolist()
        return tokens

    def followed_by(self, draws: NDArray[np.void]) -> DrawBatch:
        """A batch with more draws behind these."""
        return DrawBatch(np.concatenate([self._draws, draws]), num_edited=self.num_edited)

    def _column(self, name: str) -> NDArray[np.int32]:
        column: NDArray[np.int32] = self._draws[name]
        return column


def sampling_draws(
    params: Sequence[SamplingParams], seeds: Sequence[int], sequences: Sequence[int], *, vocab_size: int
) -> NDArray[np.void]:
    """(N,): draws with these parameters and seeds, behind the last tokens of the step's `sequences`."""
    return np.array(
        [
            (
                one.top_n_sigma,
                0.0 if one.is_greedy else one.temperature,
                one.dynatemp_range,
                one.dynatemp_exponent,
                one.typical_p,
                one.top_k if one.top_k < vocab_size else 0,
                -1 if one.num_logprobs is None else min(one.num_logprobs, vocab_size),
                one.top_p,
                one.min_p,
                one.xtc_probability,
                one.xtc_threshold,
                np.inf,
                seed & _SEED_MASK,
                0,
                -1,
                sequence,
                -1,
            )
            for one, seed, sequence in zip(params, seeds, sequences, strict=True)
        ],
        dtype=_DRAW,
    )


def scoring_draws(
    tokens: Sequence[int], given: Sequence[int], nums_top: Sequence[int], *, vocab_size: int
) -> NDArray[np.void]:
    """(N,): scores of the `given` token ids behind the step's `tokens`, and of the `nums_top` likeliest."""
    draws = np.zeros(len(tokens), _DRAW)
    draws["token"], draws["given"] = tokens, given
    draws["num_top"] = np.minimum(nums_top, vocab_size)
    return draws
