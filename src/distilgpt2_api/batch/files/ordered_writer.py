"""Writes the output of lines to their files: each once and, if order is kept, in the order of the input."""

from __future__ import annotations

from collections.abc import Callable

from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.output_file import OutputFile


class OrderedWriter:
    """Mutable: what waits for an earlier line's. The files are the caller's to close."""

    def __init__(
        self, *, output: OutputFile, errors: OutputFile, is_ordered: bool, on_written: Callable[[LineOutput], None]
    ) -> None:
        self._output = output
        self._errors = errors
        self._is_ordered = is_ordered
        self._on_written = on_written
        self._settled: dict[int, LineOutput | None] = {}
        """Turn to what waits for an earlier one, or None if it is written."""
        self._next_position = 0
        self.held_bytes = 0
        """Of outcomes that wait; read only, for others, as the next."""
        self.num_written = 0

    def submit(self, position: int, outcome: LineOutput) -> None:
        """Write it, and what has waited for it. Of a position that comes again only the first counts.

        Raises BatchFileError.
        """
        if position < self._next_position or position in self._settled:
            return
        if self._is_ordered:
            self._settled[position] = outcome
            self.held_bytes += len(outcome.content)
        else:
            self._write(outcome)
            self._settled[position] = None
        while self._next_position in self._settled:
            first = self._settled.pop(self._next_position)
            self._next_position += 1
            if first is not None:
                self.held_bytes -= len(first.content)
                self._write(first)

    def _write(self, outcome: LineOutput) -> None:
        (self._errors if outcome.is_failed else self._output).append(outcome.content)
        self.num_written += 1
        self._on_written(outcome)
