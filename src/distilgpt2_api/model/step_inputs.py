"""Lays the rows of a step plan out flat, as the kernels read them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.plan import PlanRow


@dataclass(slots=True, kw_only=True)
class StepInputs:
    """T tokens of R sequences, as in `Step` of `native/model.h`."""

    num_tokens: int
    num_sequences: int
    values: array[int]
    """The parts below, each behind the one before. One array, because each costs microseconds in every step."""

    @property
    def token_ids(self) -> array[int]:
        """(T,)"""
        return self.values[: self.num_tokens]

    @property
    def position_ids(self) -> array[int]:
        """(T,)"""
        return self.values[self.num_tokens : 2 * self.num_tokens]

    @property
    def token_begins(self) -> array[int]:
        """(R + 1,): where each sequence's tokens begin in T."""
        begin = 2 * self.num_tokens
        return self.values[begin : begin + self.num_sequences + 1]

    @property
    def block_begins(self) -> array[int]:
        """(R + 1,): where each sequence's block table begins in `block_ids`."""
        begin = 2 * self.num_tokens + self.num_sequences + 1
        return self.values[begin : begin + self.num_sequences + 1]

    @property
    def block_ids(self) -> array[int]:
        """All block tables, joined."""
        return self.values[2 * (self.num_tokens + self.num_sequences + 1) :]


def lay_out(rows: Sequence[PlanRow]) -> StepInputs:
    """Lays out `rows` in their order. Fills lists and converts them at the end, the cheapest for many short rows."""
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
        num_tokens=len(token_ids),
        num_sequences=len(rows),
        values=array("i", token_ids + position_ids + token_begins + block_begins + block_ids),
    )
