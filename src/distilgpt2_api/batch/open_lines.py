"""The lines that are still to do, in the input's order: each has a turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.input_file import InputFile
from distilgpt2_api.batch.line_ids import DoneLines
from distilgpt2_api.batch.lines import InputLine, LineError
from distilgpt2_api.batch.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLine:
    turn: int
    """From 0, without gaps."""
    record: Record
    line: InputLine | LineError
    """What it asks, or what is wrong with it."""


class OpenLines:
    """An iterator, which reads no further than it is asked to. None stands for a line that is done."""

    def __init__(self, source: InputFile, *, done: DoneLines, custom_ids: CustomIds) -> None:
        self._format = source.format
        self._has_custom_ids = not source.is_table
        self._records = source.records()
        self._done = done
        self._custom_ids = custom_ids
        self._num_begun = 0

    def __iter__(self) -> Iterator[OpenLine | None]:
        return self

    def __next__(self) -> OpenLine | None:
        """Raises BatchFileError."""
        record = next(self._records)
        line = self._read(record)
        if self._done.find(record.number) is not None:
            return None
        turn = self._num_begun
        self._num_begun += 1
        return OpenLine(turn=turn, record=record, line=line)

    def _read(self, record: Record) -> InputLine | LineError:
        """Of lines that are done too, for their custom ids."""
        try:
            line = self._format.parse(record)
            if self._has_custom_ids:
                self._custom_ids.add(line.custom_id, number=line.number)
        except LineError as error:
            return error
        return line
