"""The input file as a Ray data source: one group of lines per block, read as far ahead as Ray needs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import Datasource, ReadTask

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.cluster_pipe import Assignment
from distilgpt2_api.batch.files.formats import Format, JsonLines
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.output_file import note_answered
from distilgpt2_api.batch.files.pending_lines import PendingLine, PendingLines
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest

COLUMN = "pickled"
"""The only column of the one-row blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineGroup:
    """The lines that one call of a worker answers."""

    file_format: Format
    lines: list[PendingLine]
    failure: str | None = None
    """Why the input can't be read further."""


class LineGroups(Datasource):
    """Read by one task, because lines are ordered and duplicate custom ids are found by comparing all lines.

    A repeated task returns the same groups: the input and the counted part of the outputs do not change.
    """

    def __init__(self, assignment: Assignment, *, num_group_lines: int) -> None:
        super().__init__()
        self._assignment = assignment
        self._num_group_lines = num_group_lines

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002 - Ray's, as the next two
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002 - Ray's
    ) -> list[ReadTask]:
        read = partial(_read_blocks, self._assignment, self._num_group_lines)
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(read, metadata, per_task_row_limit=per_task_row_limit)]


def block_of(content: bytes) -> pa.Table:
    return pa.table({COLUMN: pa.array([content], type=pa.binary())})


def contents_of(block: pa.Table) -> list[bytes]:
    contents: list[bytes] = block[COLUMN].to_pylist()
    return contents


def _read_blocks(assignment: Assignment, num_group_lines: int) -> Iterator[pa.Table]:
    for group in _read_groups(assignment, num_group_lines):
        yield block_of(pickle.dumps(group))


def _read_groups(assignment: Assignment, num_group_lines: int) -> Iterator[LineGroup]:
    file_format: Format = JsonLines()
    try:
        source = InputFile(
            assignment.source, max_line_bytes=assignment.max_line_bytes, parameters=CompletionRequest.model_fields
        )
        file_format = source.format
        with CompletedLines() as completed, CustomIds() as custom_ids:
            note_answered(
                assignment.output, file_format=file_format, num_bytes=assignment.num_output_bytes, note=completed.add
            )
            note_answered(
                assignment.errors, file_format=JsonLines(), num_bytes=assignment.num_errors_bytes, note=completed.add
            )
            pending_lines = (
                one for one in PendingLines(source, completed=completed, custom_ids=custom_ids) if one is not None
            )
            lines = islice(pending_lines, assignment.max_lines)
            while group := list(islice(lines, num_group_lines)):
                yield LineGroup(file_format=file_format, lines=group)
    except BatchFileError as error:
        yield LineGroup(file_format=file_format, lines=[], failure=str(error))
