"""Committed bounds against lost speed: every figure has exactly one."""

from __future__ import annotations

import pytest
from benchmarks.bounds import check_bounds, read_bounds


def test_a_figure_must_not_be_below_its_bound() -> None:
    above, at, below = check_bounds({"a": 1.1, "b": 1.0, "c": 0.9}, {"a": 1.0, "b": 1.0, "c": 1.0})

    assert (above.is_kept, at.is_kept, below.is_kept) == (True, True, False)
    assert (below.name, below.value, below.bound) == ("c", 0.9, 1.0)


@pytest.mark.parametrize(("figures", "bounds"), [({"a": 1.0}, {}), ({}, {"a": 1.0})])
def test_a_figure_without_a_bound_and_a_bound_without_a_figure_are_refused(
    figures: dict[str, float], bounds: dict[str, float]
) -> None:
    """Otherwise a renamed figure would silently lose its bound."""
    with pytest.raises(ValueError, match="only among the figures or only among the bounds: a"):
        check_bounds(figures, bounds)


def test_the_committed_bounds_are_ratios() -> None:
    bounds = read_bounds()

    assert bounds
    assert all(0 < bound < 100 for bound in bounds.values())
    assert not [name for name in bounds if name.endswith(("/s", "ms", " s"))]
