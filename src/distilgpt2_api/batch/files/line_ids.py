"""The id of an output line names its input line, so the output itself says which lines are complete."""

import re

from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.temporary_table import TemporaryTable

PATTERN = re.compile(r"batch_req_([1-9][0-9]{0,17})_([0-9a-f]{16})")


def line_id(record: InputRecord) -> str:
    """`batch_req_NUMBER_DIGEST` of the input's record."""
    return f"batch_req_{record.number}_{record.digest}"


def parse_line_id(text: object) -> tuple[int, str]:
    """Returns number and digest. Raises ValueError."""
    match = PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"not the id of an output line: {text!r}"[:100])
    return int(match[1]), match[2]


class CompletedLines(TemporaryTable):
    """Maps the number of each line that has an answer or an error to its digest."""

    def __init__(self) -> None:
        super().__init__()
        self.num_lines = 0
        """Read-only for others."""

    def add(self, number: int, digest: str) -> None:
        """Raises ValueError if the line is complete already."""
        if not self.insert(number, digest):
            raise ValueError(f"line {number} was answered before")
        self.num_lines += 1
