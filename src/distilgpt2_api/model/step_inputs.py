"""Lays the rows of a step plan out flat, as the kernels read them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.plan import PlanRow


@dataclass(slots=True, kw_only=True)
class StepInputs:
    """T tokens of R sequences, as in `Step` of `native/model.h`."""

    token_ids: NDArray[np.int64]
    """(T,)"""
    position_ids: NDArray[np.int64]
    """(T,)"""
    token_begins: NDArray[np.int32]
    """(R + 1,): where each sequence's tokens begin in T."""
    block_ids: NDArray[np.int32]
    """All block tables, joined."""
    block_begins: NDArray[np.int32]
    """(R + 1,): where each sequence's block table begins."""


def lay_out(rows: Sequence[PlanRow]) -> StepInputs:
    """Arrays for `rows`, in their order. Fills lists and converts them at the end, the cheapest for many short rows."""
    token_ids: list[int] = []
    position_ids: list[int] = []
    token_begins = [0]
    block_ids: list[int] = []
    block_begins = [0]
    for row in rows:
        begin, num_new = row.num_computed_tokens, row.num_new_tokens
        end = begin + num_new
        if num_new == 1:  # a decode step, the most frequent case
            token_ids.append(row.token_ids[begin])
            position_ids.append(begin)
        else:
            token_ids.extend(row.token_ids[begin:end])
            position_ids.extend(range(begin, end))
        token_begins.append(len(token_ids))
        block_ids.extend(row.block_ids[: -(-end // BLOCK_SIZE)])
        block_begins.append(len(block_ids))
    return StepInputs(
        token_ids=np.array(token_ids, np.int64),
        position_ids=np.array(position_ids, np.int64),
        token_begins=np.array(token_begins, np.int32),
        block_ids=np.array(block_ids, np.int32),
        block_begins=np.array(block_begins, np.int32),
    )
