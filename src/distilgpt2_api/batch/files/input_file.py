"""The input file: read as a stream, as often as needed."""

from collections.abc import Collection, Iterator
from pathlib import Path

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.csv_table import CsvTable
from distilgpt2_api.batch.files.formats import Format, JsonLines
from distilgpt2_api.batch.files.records import InputRecord, read_records


class InputFile:
    """A CSV table if its name ends in `.csv`, else JSON lines."""

    def __init__(self, path: Path, *, max_line_bytes: int, parameters: Collection[str]) -> None:
        """`parameters`: columns of a table with these names are request parameters. Raises BatchFileError."""
        self.path = path
        self.max_line_bytes = max_line_bytes
        self.is_table = path.suffix.lower() == ".csv"
        self.format: Format = self._read_table(parameters) if self.is_table else JsonLines()

    def records(self) -> Iterator[InputRecord]:
        """All records but a table's header. Raises BatchFileError."""
        records = self._read(has_quotes=self.format.has_quotes)
        if self.is_table:
            next(records)
        return records

    def _read_table(self, parameters: Collection[str]) -> CsvTable:
        header = next(self._read(has_quotes=True), None)
        if header is None:
            raise BatchFileError(f"{self.path} is empty: a table starts with its column names")
        return CsvTable(header, parameters=parameters)

    def _read(self, *, has_quotes: bool) -> Iterator[InputRecord]:
        try:
            with self.path.open("rb") as file:
                yield from read_records(file, max_bytes=self.max_line_bytes, has_quotes=has_quotes)
        except OSError as error:
            raise BatchFileError(f"can't read {self.path}: {error.strerror}") from None
