"""The draws of a step, as the kernels read and write them: `Draw`, `Drawn` and `Draws` of `native/model.h`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.kernels.structures import Draws

_DRAW = np.dtype(
    [
        ("temperature", np.float64),
        ("typical_p", np.float64),
        ("top_k", np.int32),
        ("num_top", np.int32),
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("seed", np.uint64),
        ("position", np.int32),
        ("given", np.int32),
        ("token", np.int32),
        ("unused", np.int32),
    ]
)
_DRAWN = np.dtype([("logprob", np.float64), ("largest", np.float32), ("token_id", np.int32)])
_SEED_MASK = (1 << 64) - 1


class DrawBatch:
    """N draws with memory for their results. Mutable: the kernels write the results, and a batch serves many steps."""

    def __init__(self, draws: NDArray[np.void], *, num_edited: int = 0) -> None:
        """`draws` (N,): from `sampling_draws` or `scoring_draws`. The first `num_edited` only get logits."""
        num_draws = len(draws)
        self._draws = draws
        self._drawn = np.zeros(num_draws, _DRAWN)
        self.num_edited = num_edited
        max_top = max(int(draws["num_top"].max(initial=0)), 0)
        self.top_ids = np.zeros((num_draws, max_top), np.int32)
        self.top_logprobs = np.zeros((num_draws, max_top), np.float64)
        self.structure = Draws(
            num_draws,
            num_edited,
            max_top,
            0,
            draws.ctypes.data,
            self._drawn.ctypes.data,
            self.top_ids.ctypes.data,
            self.top_logprobs.ctypes.data,
        )
        # Views, because indexing by name takes a microsecond.
        self.tokens: NDArray[np.int32] = draws["token"]
        """(N,), to be set: the index in the step of the computed token that the draw follows."""
        self.positions: NDArray[np.int32] = draws["position"]
        """(N,), to be set: position of the drawn token in its sequence."""
        self.nums_top: NDArray[np.int32] = draws["num_top"]
        self.token_ids: NDArray[np.int32] = self._drawn["token_id"]
        """(N,): -1 if no token can be drawn, because the largest logit isn't finite."""
        self.largest: NDArray[np.float32] = self._drawn["largest"]
        """(N,): logits."""
        self.logprobs: NDArray[np.float64] = self._drawn["logprob"]
        """(N,), of rows with log-probabilities."""

    def __len__(self) -> int:
        return len(self._draws)

    def followed_by(self, draws: NDArray[np.void]) -> DrawBatch:
        """A batch with more draws behind these."""
        return DrawBatch(np.concatenate([self._draws, draws]), num_edited=self.num_edited)


def sampling_draws(params: Sequence[SamplingParams], seeds: Sequence[int], *, vocab_size: int) -> NDArray[np.void]:
    """(N,): draws with these parameters and the sequences' seeds."""
    return np.array(
        [
            (
                0.0 if one.is_greedy else one.temperature,
                one.typical_p,
                one.top_k if one.top_k < vocab_size else 0,
                -1 if one.num_logprobs is None else min(one.num_logprobs, vocab_size),
                one.top_p,
                one.min_p,
                seed & _SEED_MASK,
                0,
                -1,
                0,
                0,
            )
            for one, seed in zip(params, seeds, strict=True)
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
