"""Finds out which lines earlier runs have completed, and what remains."""

from dataclasses import dataclass

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.output_file import OutputFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeState:
    """Counts of lines that are not blank."""

    num_answered_lines: int
    num_failed_lines: int
    num_pending_lines: int
    num_bytes: int
    """Size of the pending lines."""


def recover(
    source: InputFile,
    *,
    output: OutputFile,
    errors: OutputFile,
    completed: CompletedLines,
    is_retrying: bool = False,
) -> ResumeState:
    """Fills `completed` from the two output files. `is_retrying`: failed lines are pending, and `errors` is emptied.

    Raises BatchFileError if they belong to another input. They then stay as they are, except for a truncated last line.
    """
    output.recover(completed.add)
    num_answered_lines = completed.num_lines
    errors.recover((lambda *_: None) if is_retrying else completed.add)
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
            raise _other_input(
                source, output, errors, f"line {record.number} has changed or moved since it was completed"
            )
    if num_unseen_lines:
        raise _other_input(
            source, output, errors, f"{num_unseen_lines} completed lines are no longer at their line numbers"
        )
    if is_retrying:
        errors.restart()
    return ResumeState(
        num_answered_lines=num_answered_lines,
        num_failed_lines=completed.num_lines - num_answered_lines,
        num_pending_lines=num_pending_lines,
        num_bytes=num_bytes,
    )


def _other_input(source: InputFile, output: OutputFile, errors: OutputFile, why: str) -> BatchFileError:
    files = " and ".join(str(each.path) for each in (output, errors) if each.path.stat().st_size)
    retry = " ask lines that failed again with --retry-failed," if errors.path.stat().st_size else ""
    return BatchFileError(
        f"the answers in {files} are of another input than {source.path}: {why}; "
        f"name another output,{retry} or start over with --overwrite"
    )
