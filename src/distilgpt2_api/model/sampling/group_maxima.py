"""Maxima of groups of columns: one pass over the logits, after which most columns are not read again.

The k largest logits of a row are in the k groups with the largest maxima, and a group's maximum bounds its share of the
distribution. Both samplers start with these maxima.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

GROUP_SIZE = 16
BLOCK_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMaxima:
    """Maxima of R rows of V logits at two levels. NaN wins over every number.

    Group g of G holds the columns g, g + G, g + 2G …, so a maximum runs over long contiguous stretches and NumPy
    vectorises it (a maximum over neighbours took 4 times as long). Block b of B holds the groups b, b + B, b + 2B …
    """

    logits: NDArray[np.float32]
    """(R, V), C-contiguous."""
    of_groups: NDArray[np.float32]
    """(R, BLOCK_GROUPS * B): the G groups, then -inf."""
    of_blocks: NDArray[np.float32]
    """(R, B)"""
    of_rows: NDArray[np.float32]
    """(R,)"""
    num_groups: int

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> GroupMaxima:
        """`logits` (R, V), C-contiguous, R and V at least 1."""
        num_rows, vocab_size = logits.shape
        num_groups = -(-vocab_size // GROUP_SIZE)
        num_blocks = -(-num_groups // BLOCK_GROUPS)
        of_groups = np.empty((num_rows, BLOCK_GROUPS * num_blocks), dtype=np.float32)
        of_groups[:, num_groups:] = -np.inf
        num_full = vocab_size // num_groups  # stretches of num_groups columns; GROUP_SIZE of them, or one shorter last
        strides = (logits.strides[0], num_groups * logits.itemsize, logits.itemsize)
        stretches = np.ndarray((num_rows, num_full, num_groups), np.float32, logits, strides=strides)  # a view
        groups = of_groups[:, :num_groups]
        stretches.max(axis=1, out=groups)
        num_left = vocab_size - num_full * num_groups
        np.maximum(groups[:, :num_left], logits[:, vocab_size - num_left :], out=groups[:, :num_left])
        of_blocks = of_groups.reshape(num_rows, BLOCK_GROUPS, num_blocks).max(axis=1)
        return cls(
            logits=logits,
            of_groups=of_groups,
            of_blocks=of_blocks,
            of_rows=of_blocks.max(axis=1),
            num_groups=num_groups,
        )

    def take_rows(self, rows: NDArray[np.intp]) -> GroupMaxima:
        """The maxima of `rows`; the same object if these are all."""
        if len(rows) == len(self.logits):
            return self
        arrays = {name: getattr(self, name)[rows] for name in ("logits", "of_groups", "of_blocks", "of_rows")}
        return replace(self, **arrays)

    def locate_columns(self, rows: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices in the flat logits of the columns of N groups, (N, GROUP_SIZE).

        A group's last indices may lie beyond their row, because the vocabulary need not fill all groups.
        """
        starts = rows * self.logits.shape[1] + groups
        columns: NDArray[np.intp] = starts[:, None] + np.arange(0, GROUP_SIZE * self.num_groups, self.num_groups)
        return columns
