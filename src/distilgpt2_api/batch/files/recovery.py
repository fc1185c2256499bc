"""What an earlier run has left: which lines it has answered, and what remains."""

from __future__ import annotations

from dataclasses import dataclass

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.output_file import OutputFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeState:
    """Lines are those that are not blank."""

    num_answered_lines: int
    num_failed_lines: int
    num_pending_lines: int
    """Still to do."""
    num_bytes: int
    """Of these."""


def recover(source: InputFile, *, output: OutputFile, errors: OutputFile, completed: CompletedLines) -> ResumeState:
    """Fill `done` from the two files. Raises BatchFileError where they are another input's, and leaves them alone then
    but for what a kill has left of a last line.
    """
    output.recover(completed.add)
    num_answered_lines = completed.num_lines
    errors.recover(completed.add)
    num_unseen_lines = completed.num_lines
    num_pending_lines = num_bytes = 0
    for record in source.records():
        digest = completed.find(record.number)
        if digest is None:
            num_pending_lines += 1
            num_bytes += record.num_bytes
        elif digest == record.digest:
            num_unseen_lines -= 1
        else:
            raise _other_input(source, output, errors, f"line {record.number} is not the one that was answered")
    if num_unseen_lines:
        raise _other_input(source, output, errors, f"{num_unseen_lines} lines have been answered that are not there")
    return ResumeState(
        num_answered_lines=num_answered_lines,
        num_failed_lines=completed.num_lines - num_answered_lines,
        num_pending_lines=num_pending_lines,
        num_bytes=num_bytes,
    )


def _other_input(source: InputFile, output: OutputFile, errors: OutputFile, why: str) -> BatchFileError:
    return BatchFileError(
        f"{output.path} and {errors.path} are another input's than {source.path}: {why}; "
        "name another output, or begin anew with --overwrite"
    )
