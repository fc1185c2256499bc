"""What is written for a line: its answer, or an error into the file of errors."""

from __future__ import annotations

from dataclasses import dataclass

from distilgpt2_api.batch.formats import Format
from distilgpt2_api.batch.line_ids import line_id
from distilgpt2_api.batch.lines import Answer, InputLine, LineError, answered_line, failed_line
from distilgpt2_api.batch.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    num_bytes: int
    """Of the input's record, with its end."""
    content: bytes
    is_failed: bool


def answered(file_format: Format, record: Record, line: InputLine, answer: Answer) -> Outcome:
    """Answers that are no success are errors, with what was answered."""
    if answer.is_success:
        content = file_format.write(record, line, answer)
    else:
        content = answered_line(line_id(record), line.custom_id, answer)
    return Outcome(num_bytes=record.num_bytes, content=content, is_failed=not answer.is_success)


def refused(record: Record, error: LineError) -> Outcome:
    """Of a line that asks nothing that can be done."""
    content = failed_line(
        line_id(record), error.custom_id, code=error.code, message=str(error), number=error.number, param=error.param
    )
    return Outcome(num_bytes=record.num_bytes, content=content, is_failed=True)
