"""Options that several commands share, and what becomes of options: settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from distilgpt2_api.core.config import Precision

Command = TypeVar("Command", bound=Callable[..., Any])


PRECISIONS = click.Choice([precision.value for precision in Precision])


class FiniteRange(click.FloatRange):
    """A number within bounds. No bound keeps `nan` out, which is neither above nor below any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            within = self._describe_range()
            self.fail(f"{number} is not in the range {within}: {number} is not a finite number.", param, ctx)
        return number


def model_option(function: Command) -> Command:
    return click.option("--model", metavar="NAME_OR_FOLDER", help="A pulled model's name, or a folder.")(function)


def precision_option(function: Command) -> Command:
    return click.option("--precision", type=PRECISIONS, help="Weights and arithmetic. Default: int8.")(function)


def num_threads_option(function: Command) -> Command:
    return click.option("--num-threads", metavar="N", help="Compute threads. Default: the cores we may use.")(function)


def given(**options: object) -> dict[str, object]:
    """The options that were given: the others leave their settings to environment, file and default."""
    return {name: value for name, value in options.items() if value is not None}
