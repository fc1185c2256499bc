"""Answers a line: the output is an answer, or an error for the error file."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distilgpt2_api.batch.files.formats import Format
from distilgpt2_api.batch.files.line_ids import line_id
from distilgpt2_api.batch.files.pending_lines import PendingLine
from distilgpt2_api.batch.lines import Answer, InputLine, LineError, answered_line, failed_line
from distilgpt2_api.batch.retries import ask_until_answered

LineHandler = Callable[[InputLine], Awaitable[Answer]]
"""Answers a line, possibly with an error. UnavailableError means retry (`ask_until_answered`); any other exception ends
the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutput:
    num_bytes: int
    """Size of the input record, with its line end."""
    content: bytes
    is_failed: bool


async def answer_line(pending: PendingLine, file_format: Format, handle_line: LineHandler) -> LineOutput:
    """Calls `handle_line`, again after temporary refusals. Raises what it raises otherwise."""
    if isinstance(pending.line, LineError):
        error, is_failed = pending.line, True
        content = failed_line(
            line_id(pending.record),
            error.custom_id,
            code=error.code,
            message=str(error),
            number=error.number,
            param=error.param,
        )
    else:
        line = pending.line
        answer = await ask_until_answered(lambda: handle_line(line))
        is_failed = not answer.is_success
        if is_failed:
            content = answered_line(line_id(pending.record), pending.line.custom_id, answer)
        else:
            content = file_format.write(pending.record, pending.line, answer)
    return LineOutput(num_bytes=pending.record.num_bytes, content=content, is_failed=is_failed)
