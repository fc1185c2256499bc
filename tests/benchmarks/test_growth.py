"""The benchmark of growth: its end of scaling, and its reference kernel."""

from __future__ import annotations

import pytest
from benchmarks.growth import describe_end
from benchmarks.reference_kernel import ReferenceKernel

from distilgpt2_api.core.config import ModelConfig


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([100, 190, 350], "up to 4 sequences"),
        ([100, 190, 200], "at 2 sequences: 4 give less than a tenth more"),
        ([100, 90, 200], "at 1 sequences: 2 give less than a tenth more"),
    ],
)
def test_scaling_ends_where_twice_as_many_give_less_than_a_tenth_more(rates: list[float], expected: str) -> None:
    assert expected in describe_end([1, 2, 4], rates)


def test_the_reference_computes_rows_of_any_number_and_less_without_the_head() -> None:
    """With a large vocabulary most of the work is the head; without it, rows are cheaper."""
    config = ModelConfig(vocab_size=20_000, num_positions=32, num_layers=1, num_heads=2, width=64, inner_width=256)
    reference = ReferenceKernel(config)

    assert reference.rows_per_s(1) > 0
    assert reference.rows_per_s(16, has_head=False) > reference.rows_per_s(16)
