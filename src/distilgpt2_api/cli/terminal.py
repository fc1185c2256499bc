"""Tables and progress on the terminal."""

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import click


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, num_left: int = 1) -> None:
    """Print columns that are as wide as their widest cell. The first `num_left` are aligned left, the others right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            f"{cell:<{width}}" if column < num_left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def progress_stream() -> TextIO:
    """Stderr if it is a terminal. Elsewhere a bar's label would be a line among a table's rows, so it is dropped."""
    return sys.stderr if sys.stderr.isatty() else io.StringIO()
