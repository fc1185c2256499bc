"""What is written for a line: its answer, or an error into the file of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distilgpt2_api.batch.formats import Format
from distilgpt2_api.batch.line_ids import line_id
from distilgpt2_api.batch.lines import Answer, InputLine, LineError, answered_line, failed_line
from distilgpt2_api.batch.open_lines import OpenLine
from distilgpt2_api.batch.retries import ask_until_answered

Execute = Callable[[InputLine], Awaitable[Answer]]
"""Answers a line; an error of one line is an answer too. UnavailableError: ask again (`ask_until_answered`). Any other
exception ends all work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    num_bytes: int
    """Of the input's record, with its end."""
    content: bytes
    is_failed: bool


async def find_outcome(one: OpenLine, file_format: Format, execute: Execute) -> Outcome:
    """Raises what `execute` raises, except for refusals that will pass: it is asked again after them."""
    if isinstance(one.line, LineError):
        content, is_failed = _failure(one, one.line), True
    else:
        line = one.line
        answer = await ask_until_answered(lambda: execute(line))
        is_failed = not answer.is_success
        if is_failed:
            content = answered_line(line_id(one.record), one.line.custom_id, answer)
        else:
            content = file_format.write(one.record, one.line, answer)
    return Outcome(num_bytes=one.record.num_bytes, content=content, is_failed=is_failed)


def _failure(one: OpenLine, error: LineError) -> bytes:
    return failed_line(
        line_id(one.record),
        error.custom_id,
        code=error.code,
        message=str(error),
        number=error.number,
        param=error.param,
    )
