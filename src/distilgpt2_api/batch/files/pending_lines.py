"""The lines without an answer or an error so far, in the order of the input."""

from collections.abc import Iterator
from dataclasses import dataclass

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.lines import InputLine, LineError


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingLine:
    position: int
    """Among the pending lines: from 0, without gaps."""
    record: InputRecord
    line: InputLine | LineError
    """The request, or what is wrong with it."""


class PendingLines:
    """A lazy iterator. It yields None for a line that is complete already."""

    def __init__(self, source: InputFile, *, completed: CompletedLines, custom_ids: CustomIds) -> None:
        self._format = source.format
        self._has_custom_ids = not source.is_table
        self._records = source.records()
        self._completed = completed
        self._custom_ids = custom_ids
        self._num_begun = 0

    def __iter__(self) -> Iterator[PendingLine | None]:
        return self

    def __next__(self) -> PendingLine | None:
        """Raises BatchFileError."""
        record = next(self._records)
        line = self._read(record)
        if self._completed.find(record.number) is not None:
            return None
        position = self._num_begun
        self._num_begun += 1
        return PendingLine(position=position, record=record, line=line)

    def _read(self, record: InputRecord) -> InputLine | LineError:
        """Also reads complete lines, for their custom ids."""
        try:
            line = self._format.parse(record)
            if self._has_custom_ids:
                self._custom_ids.add(line.custom_id, number=line.number)
        except LineError as error:
            return error
        return line
