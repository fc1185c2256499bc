"""Lays the rows of a step plan out flat, the form that the kernels read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.plan import PlanRow


@dataclass(slots=True, kw_only=True)
class StepInputs:
    """T tokens of R sequences, one after the other; `Step` in `native/model.h` says what the kernels read."""

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    subsequence_begins: NDArray[np.int32]
    block_indices: NDArray[np.int32]
    block_indices_begins: NDArray[np.int32]


def lay_out(rows: Sequence[PlanRow]) -> StepInputs:
    """Arrays for `rows`, in their order. Lists are converted at the end, which is fastest for many short rows."""
    input_ids: list[int] = []
    position_ids: list[int] = []
    subsequence_begins = [0]
    block_indices: list[int] = []
    block_indices_begins = [0]
    for row in rows:
        begin, num_new = row.num_computed_tokens, row.num_new_tokens
        end = begin + num_new
        if num_new == 1:  # a decode step, by far the most frequent
            input_ids.append(row.token_ids[begin])
            position_ids.append(begin)
        else:
            input_ids.extend(row.token_ids[begin:end])
            position_ids.extend(range(begin, end))
        subsequence_begins.append(len(input_ids))
        block_indices.extend(row.block_ids[: -(-end // BLOCK_SIZE)])
        block_indices_begins.append(len(block_indices))
    return StepInputs(
        input_ids=np.array(input_ids, np.int64),
        position_ids=np.array(position_ids, np.int64),
        subsequence_begins=np.array(subsequence_begins, np.int32),
        block_indices=np.array(block_indices, np.int32),
        block_indices_begins=np.array(block_indices_begins, np.int32),
    )
