"""Outcomes into their files: each line's once and, where order is kept, in turn."""

from __future__ import annotations

from collections.abc import Callable

from distilgpt2_api.batch.outcomes import Outcome
from distilgpt2_api.batch.output_file import OutputFile


class Turns:
    """Mutable: what waits for an earlier line's. The files are the caller's to close."""

    def __init__(
        self, *, output: OutputFile, errors: OutputFile, is_ordered: bool, on_written: Callable[[Outcome], None]
    ) -> None:
        self._output = output
        self._errors = errors
        self._is_ordered = is_ordered
        self._on_written = on_written
        self._settled: dict[int, Outcome | None] = {}
        """Turn to what waits for an earlier one, or None if it is written."""
        self._next_turn = 0
        self.held_bytes = 0
        """Of outcomes that wait; read only, for others, as the next."""
        self.num_written = 0

    def settle(self, turn: int, outcome: Outcome) -> None:
        """Write it, and what has waited for it. Of a turn that comes again only the first counts.

        Raises BatchFileError.
        """
        if turn < self._next_turn or turn in self._settled:
            return
        if self._is_ordered:
            self._settled[turn] = outcome
            self.held_bytes += len(outcome.content)
        else:
            self._write(outcome)
            self._settled[turn] = None
        while self._next_turn in self._settled:
            first = self._settled.pop(self._next_turn)
            self._next_turn += 1
            if first is not None:
                self.held_bytes -= len(first.content)
                self._write(first)

    def _write(self, outcome: Outcome) -> None:
        (self._errors if outcome.is_failed else self._output).append(outcome.content)
        self.num_written += 1
        self._on_written(outcome)
