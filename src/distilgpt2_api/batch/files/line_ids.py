"""The id of an answer's line names the line that it answers: so an output says by itself what is done."""

from __future__ import annotations

import re

from distilgpt2_api.batch.files.records import InputRecord
from distilgpt2_api.batch.temporary_table import TemporaryTable

PATTERN = re.compile(r"batch_req_([1-9][0-9]{0,17})_([0-9a-f]{16})")


def line_id(record: InputRecord) -> str:
    """`batch_req_NUMBER_DIGEST` of the input's record."""
    return f"batch_req_{record.number}_{record.digest}"


def parse_line_id(text: object) -> tuple[int, str]:
    """Number and digest. Raises ValueError."""
    match = PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"no id of an answer: {text!r}"[:100])
    return int(match[1]), match[2]


class CompletedLines(TemporaryTable):
    """Number of each line that has been answered to its digest."""

    def __init__(self) -> None:
        super().__init__()
        self.num_lines = 0
        """Read only, for others."""

    def add(self, number: int, digest: str) -> None:
        """Raises ValueError where it is there already."""
        if not self.insert(number, digest):
            raise ValueError(f"line {number} has been answered before")
        self.num_lines += 1
