"""Checks figures against committed bounds: `bounds.json` has the lowest allowed value of each figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BOUNDS = Path(__file__).with_name("bounds.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    name: str
    value: float
    bound: float

    @property
    def is_kept(self) -> bool:
        return self.value >= self.bound


def read_bounds(path: Path = BOUNDS) -> dict[str, float]:
    bounds: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return bounds


def check_bounds(figures: Mapping[str, float], bounds: Mapping[str, float]) -> list[Verdict]:
    """Raises ValueError if a name is only in one of the two."""
    if unmatched := figures.keys() ^ bounds.keys():
        raise ValueError(f"only among the figures or only among the bounds: {', '.join(sorted(unmatched))}")
    return [Verdict(name=name, value=value, bound=bounds[name]) for name, value in figures.items()]
