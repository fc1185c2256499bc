"""Maxima of groups of columns: one pass over the logits, after which most of them need no second look.

The k largest logits of a row lie in the k groups with the largest maxima, and a group's maximum bounds its part of the
distribution. Both samplers start here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

FAN = 8
"""Columns of a group, and groups of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMaxima:
    """Maxima of R rows of V logits at two levels. NaN wins over every number.

    Group g of G holds the columns g, g + G, g + 2G …, so that a maximum runs over long contiguous stretches and NumPy
    vectorises it (a maximum over neighbours took 4 times as long). Block b of B holds the groups b, b + B, b + 2B …
    """

    logits: NDArray[np.float32]
    """(R, V), C-contiguous."""
    of_groups: NDArray[np.float32]
    """(R, FAN * B): the G groups, then -inf."""
    of_blocks: NDArray[np.float32]
    """(R, B)"""
    of_rows: NDArray[np.float32]
    """(R,)"""
    num_groups: int

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> GroupMaxima:
        """`logits` (R, V), C-contiguous, R and V at least 1."""
        num_rows, vocab_size = logits.shape
        num_groups = -(-vocab_size // FAN)
        num_blocks = -(-num_groups // FAN)
        of_groups = np.empty((num_rows, FAN * num_blocks), dtype=np.float32)
        of_groups[:, num_groups:] = -np.inf
        num_full = vocab_size // num_groups  # stretches of num_groups columns; FAN of them, or one shorter last
        stretches = as_strided(
            logits, (num_rows, num_full, num_groups), (logits.strides[0], num_groups * logits.itemsize, logits.itemsize)
        )
        groups = of_groups[:, :num_groups]
        stretches.max(axis=1, out=groups)
        num_left = vocab_size - num_full * num_groups
        np.maximum(groups[:, :num_left], logits[:, vocab_size - num_left :], out=groups[:, :num_left])
        of_blocks = of_groups.reshape(num_rows, FAN, num_blocks).max(axis=1)
        return cls(
            logits=logits,
            of_groups=of_groups,
            of_blocks=of_blocks,
            of_rows=of_blocks.max(axis=1),
            num_groups=num_groups,
        )

    def take_rows(self, rows: NDArray[np.intp]) -> GroupMaxima:
        """Those of some rows; the same object where that is all of them."""
        if len(rows) == len(self.logits):
            return self
        return GroupMaxima(
            logits=self.logits[rows],
            of_groups=self.of_groups[rows],
            of_blocks=self.of_blocks[rows],
            of_rows=self.of_rows[rows],
            num_groups=self.num_groups,
        )

    def gather_groups(
        self, rows: NDArray[np.intp], groups: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Logits and token ids of the groups named by `rows` (N,) and `groups` (N,): two arrays (N, FAN).

        A slot beyond the vocabulary has the logit -inf.
        """
        vocab_size = self.logits.shape[1]
        token_ids = groups[:, None] + np.arange(0, FAN * self.num_groups, self.num_groups)
        is_beyond = token_ids >= vocab_size
        flat = token_ids + (rows * vocab_size)[:, None]
        values = self.logits.reshape(-1).take(flat, mode="clip")
        values[is_beyond] = -np.inf
        return values, token_ids
