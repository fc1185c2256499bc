"""Writes the output of lines to their files: each once and, if order is kept, in the order of the input."""

from collections.abc import Callable

from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.output_file import OutputFile


class OrderedWriter:
    """Holds outputs back until all earlier ones are written. Mutable. The caller closes the files."""

    def __init__(
        self, *, output: OutputFile, errors: OutputFile, is_ordered: bool, on_written: Callable[[LineOutput], None]
    ) -> None:
        self._output = output
        self._errors = errors
        self._is_ordered = is_ordered
        self._on_written = on_written
        self._submitted: dict[int, LineOutput | None] = {}
        """Position to the output that waits for an earlier one, or None if it is written."""
        self._next_position = 0
        self.held_bytes = 0
        """Size of the outputs that wait. Read-only for others, as is `num_written`."""
        self.num_written = 0

    def submit(self, position: int, line_output: LineOutput) -> None:
        """Writes the output, and those that waited for it. A second output for a position is ignored.

        Raises BatchFileError.
        """
        if position < self._next_position or position in self._submitted:
            return
        if self._is_ordered:
            self._submitted[position] = line_output
            self.held_bytes += len(line_output.content)
        else:
            self._write(line_output)
            self._submitted[position] = None
        while self._next_position in self._submitted:
            first = self._submitted[self._next_position]
            if first is not None:
                # It stays the next one if this fails: a shorter output behind it might fit on a full disk.
                self._write(first)
                self.held_bytes -= len(first.content)
            del self._submitted[self._next_position]
            self._next_position += 1

    def _write(self, line_output: LineOutput) -> None:
        (self._errors if line_output.is_failed else self._output).append(line_output.content)
        self.num_written += 1
        self._on_written(line_output)
