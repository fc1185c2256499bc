"""Types of stored files and batches. Times are Unix times, in seconds."""

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
    """A batch's answers, or its errors."""


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    FAILED = "failed"
    """The input is invalid: no line was answered."""
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OPEN_STATUSES = frozenset(
    {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
)
"""Batches that have not ended."""
ENDED_STATUSES = tuple(status for status in BatchStatus if status not in OPEN_STATUSES)
STAMPED_STATUSES = tuple(status for status in BatchStatus if status is not BatchStatus.VALIDATING)
"""Statuses for which the store keeps the time at which a batch reached them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    file_id: str
    caller: str
    filename: str
    purpose: FilePurpose
    created_s: float
    num_bytes: int = 0
    expires_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputError:
    """An error in a batch's input; `line` counts from 1."""

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
    """The output for one line of the input."""

    number: int
    """From 1."""
    content: bytes
    """A complete output line, with its line end."""
    is_success: bool
    """True: for the output file; False: for the error file."""
    usage: TokenUsage = TokenUsage()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A caller's request for a batch."""

    caller: str
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    model: str
    output_expiry_s: float | None
    """Lifetime of its output files; None: as for all files."""


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
    """The final status, once all work is done."""
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
    """The id of the current or last lease."""

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES

    @property
    def has_all_results(self) -> bool:
        return self.num_completed + self.num_failed == self.num_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Limits on what one caller may store, and for how long."""

    max_files: int
    max_bytes: int
    """All files together, outputs included. A batch's outputs are stored even above the limit."""
    max_open_batches: int
    expiry_s: float
    """Lifetime of a batch after its end, and of a file that sets no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    has_more: bool


WINDOW_S = 24 * 3600.0
"""The completion window: OpenAI's only one."""


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def new_batch_id() -> str:
    return f"batch_{secrets.token_hex(12)}"
