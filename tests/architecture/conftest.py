"""Fixtures: every module of the package as text and as a syntax tree, read once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "distilgpt2_api"


@dataclass(frozen=True)
class Module:
    path: Path

    @property
    def name(self) -> str:
        """The path below the package, as the docs write it."""
        return self.path.relative_to(SOURCE).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())


MODULES = [Module(path) for path in sorted(SOURCE.rglob("*.py"))]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every module of the package."""
    return MODULES


@pytest.fixture(params=MODULES, ids=lambda module: module.name)
def module(request: pytest.FixtureRequest) -> Module:
    """Each module of the package, one after the other."""
    assert isinstance(request.param, Module)
    return request.param
