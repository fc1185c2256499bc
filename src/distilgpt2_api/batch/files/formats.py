"""The formats of a batch's files: JSON lines here, CSV tables in `csv_table.py`."""

from typing import Protocol

import orjson

from distilgpt2_api.batch.files.line_ids import line_id
from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.lines import TOO_LONG, Answer, InputLine, LineError, answered_line, parse_line


class Format(Protocol):
    @property
    def has_quotes(self) -> bool:
        """See `read_records`."""

    @property
    def header(self) -> bytes:
        """The first line of an output, with its line end; may be empty."""

    @property
    def beginning(self) -> bytes:
        """The first bytes of every line that `write` returns."""

    def parse(self, record: InputRecord) -> InputLine:
        """Raises LineError."""

    def write(self, record: InputRecord, line: InputLine, answer: Answer) -> bytes:
        """The output line for a successful answer, with its line end."""

    def read_id(self, content: bytes) -> object:
        """The id in a line from `write`. Raises ValueError, KeyError or TypeError for anything else."""


class JsonLines:
    """A Format. `CustomIds` checks that custom ids are unique."""

    has_quotes = False
    header = b""
    beginning = b'{"id":"batch_req_'

    def parse(self, record: InputRecord) -> InputLine:
        return parse_line(content_of(record), number=record.number)

    def write(self, record: InputRecord, line: InputLine, answer: Answer) -> bytes:
        return answered_line(line_id(record), line.custom_id, answer)

    def read_id(self, content: bytes) -> object:
        return orjson.loads(content)["id"]


def content_of(record: InputRecord) -> bytes:
    """Raises LineError if the record is too long."""
    if record.content is None:
        raise LineError(f"the line is too long: {record.num_bytes} bytes", number=record.number, code=TOO_LONG)
    return record.content
