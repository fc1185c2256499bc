"""Files and batches as they are stored. Times are Unix times, in seconds."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FilePurpose(StrEnum):
    BATCH = "batch"
    """A batch's input."""
    BATCH_OUTPUT = "batch_output"
    """What came of a batch: answers, or errors."""


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    FAILED = "failed"
    """Its input is none: no line of it was asked."""
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OPEN_STATUSES = frozenset(
    {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
)
"""Of batches that are still to end."""
ENDED_STATUSES = tuple(status for status in BatchStatus if status not in OPEN_STATUSES)
STAMPED_STATUSES = tuple(status for status in BatchStatus if status is not BatchStatus.VALIDATING)
"""Of which it is kept when a batch came to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    file_id: str
    caller: str
    filename: str
    purpose: FilePurpose
    num_bytes: int
    created_s: float
    expires_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputError:
    """What is wrong with a batch's input, and where: `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineResult:
    """What is to be written for one line of the input."""

    number: int
    """From 1."""
    content: bytes
    """A whole line, its end included."""
    is_success: bool
    """Whether it goes into the file of outputs, or into that of errors."""
    usage: TokenUsage = TokenUsage()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What a caller asks for."""

    caller: str
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    model: str
    output_expiry_s: float | None
    """From their creation, for the files that will come of it; None: as all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    batch_id: str
    caller: str
    endpoint: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    status: BatchStatus
    ending: BatchStatus
    """What it is to come to, once nothing is left to do for it."""
    created_s: float
    expires_s: float
    stamps: Mapping[BatchStatus, float] = field(default_factory=dict)
    metadata: Mapping[str, str] | None
    model: str
    output_expiry_s: float | None
    errors: tuple[InputError, ...]
    num_lines: int
    num_completed: int
    num_failed: int
    usage: TokenUsage
    owner: str | None
    """The id of its lease: the current one, or the last."""

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES

    @property
    def has_all_results(self) -> bool:
        return self.num_completed + self.num_failed == self.num_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """What one caller may have in the store, and for how long."""

    max_files: int
    max_bytes: int
    """Of all its files, outputs included; a batch's outputs are stored all the same."""
    max_open_batches: int
    expiry_s: float
    """From the end of a batch, and from the creation of a file that says nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A piece of a list."""

    items: Sequence[Item]
    has_more: bool


WINDOW_S = 24 * 3600.0
"""In which a batch is to end: the one that OpenAI has."""


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def new_batch_id() -> str:
    return f"batch_{secrets.token_hex(12)}"
