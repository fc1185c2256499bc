"""The rows of a step, laid out flat."""

from __future__ import annotations

from typing import Any

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow
from distilgpt2_api.model.step_inputs import lay_out


def build_row(num_tokens: int, begin: int, end: int, block_ids: list[int]) -> PlanRow:
    return PlanRow(
        sequence_id=0,
        token_ids=list(range(100, 100 + num_tokens)),
        num_prompt_tokens=num_tokens,
        num_computed_tokens=begin,
        num_new_tokens=end - begin,
        block_ids=block_ids,
        params=SamplingParams(),
        seed=0,
        is_sampling=end == num_tokens,
    )


def test_a_prefill_a_chunk_and_a_decode() -> None:
    rows = [
        build_row(3, 0, 3, [7]),
        build_row(70, 30, 65, [5, 2, 9]),
        build_row(33, 32, 33, [1, 4, 8]),  # the third block is allocated ahead: not yet part of the table
    ]

    inputs = lay_out(rows)

    expected: dict[str, Any] = {
        "token_ids": [100, 101, 102, *range(130, 165), 132],
        "position_ids": [0, 1, 2, *range(30, 65), 32],
        "token_begins": [0, 3, 38, 39],
        "block_ids": [7, 5, 2, 9, 1, 4],
        "block_begins": [0, 1, 4, 6],
    }
    assert {name: getattr(inputs, name).tolist() for name in expected} == expected
    assert (inputs.num_tokens, inputs.num_sequences, inputs.values.itemsize) == (39, 3, 4)
