"""What a batch's files may look like: OpenAI's lines here, tables in `csv_table.py`."""

from __future__ import annotations

from typing import Protocol

import orjson

from distilgpt2_api.batch.files.line_ids import line_id
from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.lines import TOO_LONG, Answer, InputLine, LineError, answered_line, parse_line


class Format(Protocol):
    @property
    def has_quotes(self) -> bool:
        """As `read_records` has it."""

    @property
    def header(self) -> bytes:
        """What an output begins with, its end included."""

    @property
    def beginning(self) -> bytes:
        """Of every line that `write` writes."""

    def parse(self, record: InputRecord) -> InputLine:
        """Raises LineError."""

    def write(self, record: InputRecord, line: InputLine, answer: Answer) -> bytes:
        """An answer that is a success, for the output, its end included."""

    def read_id(self, content: bytes) -> object:
        """The id of what `write` wrote. Raises ValueError, KeyError or TypeError where that is something else."""


class JsonLines:
    """A Format. Each custom id should be there once, which `CustomIds` sees to."""

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
    """Raises LineError where it is too long."""
    if record.content is None:
        raise LineError(f"{record.num_bytes} bytes are too many", number=record.number, code=TOO_LONG)
    return record.content
