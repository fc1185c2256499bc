"""Options that several commands share, and their conversion to settings."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.params import PLAIN_PARAMETERS, Parameter

Command = TypeVar("Command", bound=Callable[..., Any])


PRECISIONS = click.Choice([precision.value for precision in Precision])


class FiniteRange(click.FloatRange):
    """A finite number within bounds: bounds alone let `nan` through, which compares as false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            within = self._describe_range()
            self.fail(f"{number} is not in the range {within}: {number} is not a finite number.", param, ctx)
        return number


def model_option(function: Command) -> Command:
    return click.option("--model", metavar="NAME_OR_FOLDER", help="A pulled model's name, or a folder.")(function)


def precision_option(function: Command) -> Command:
    return click.option("--precision", type=PRECISIONS, help="Of the weights. Default: int8.")(function)


def num_threads_option(function: Command) -> Command:
    return click.option("--num-threads", metavar="N", help="Compute threads. Default: the usable cores.")(function)


def format_option(function: Command) -> Command:
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Text for people, or JSON for programs.",
    )(function)


def plain_parameter_options(**defaults: float) -> Callable[[Command], Command]:
    """Add an option for each plain sampling parameter. `defaults` replaces the neutral values as defaults."""

    def decorate(function: Command) -> Command:
        for name, entry in reversed(list(PLAIN_PARAMETERS.items())):
            flag, kind = f"--{name.replace('_', '-')}", _type_of(entry)
            function = click.option(
                flag if kind else f"{flag}/--no-{flag[2:]}",
                type=kind,
                default=defaults.get(name, entry.neutral),
                show_default=True,
                help=entry.description,
            )(function)
        return function

    return decorate


def _type_of(entry: Parameter) -> click.ParamType[Any] | None:
    """The option's click type; None for a flag."""
    if entry.minimum is None or entry.maximum is None:
        return None
    if entry.type is int:
        return click.IntRange(int(entry.minimum), int(entry.maximum))
    return FiniteRange(entry.minimum, entry.maximum, min_open=entry.excludes_minimum)


def overrides_from(**options: object) -> dict[str, object]:
    """The options that were set; the other settings come from the environment, the file or their defaults."""
    return {name: value for name, value in options.items() if value is not None}
