"""What a server needs of the store. No database in sight: where it is switched off, its packages need not be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.batch.store.objects import BatchStatus, NewBatch, Page, StoredBatch, StoredFile
from distilgpt2_api.batch.store.threads import StoreThreads

AskLine = Callable[[str, InputLine], Awaitable[Answer]]
"""Asks what a line asks, on behalf of a caller. Raises UnavailableError where that can't be done now."""

CheckModel = Callable[[str], None]
"""Raises InvalidRequestError for the name of a model that is not served here."""


class BatchObserver(Protocol):
    """Called on the event loop."""

    def on_lines(self, *, num_completed: int, num_failed: int) -> None:
        """So many more lines have their results, in the store."""

    def on_batch_ended(self, status: BatchStatus) -> None: ...


class FileStore(Protocol):
    """`Files`, as callers see them."""

    def begin(self, *, caller: str) -> str: ...

    def append(self, file_id: str, *, caller: str, content: bytes) -> None: ...

    def finish(self, file_id: str, *, filename: str, expiry_s: float | None) -> StoredFile: ...

    def discard(self, file_id: str) -> None: ...

    def find(self, file_id: str, *, caller: str) -> StoredFile: ...

    def list(
        self, *, caller: str, purpose: str | None, after: str | None, limit: int, is_ascending: bool
    ) -> Page[StoredFile]: ...

    def delete(self, file_id: str, *, caller: str) -> None: ...

    def chunks(self, file_id: str) -> Iterator[bytes]: ...


class BatchStore(Protocol):
    """`Batches`, as callers see them."""

    def create(self, new: NewBatch) -> StoredBatch: ...

    def find(self, batch_id: str, *, caller: str) -> StoredBatch: ...

    def list(self, *, caller: str, after: str | None, limit: int) -> Page[StoredBatch]: ...

    def cancel(self, batch_id: str, *, caller: str) -> StoredBatch: ...


class Worker(Protocol):
    """`BatchWorker`: who does what the batches ask."""

    def start(self) -> None: ...

    def wake(self) -> None: ...

    async def stop(self) -> None: ...


class Closable(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchService:
    """Files, batches and who works on them. Calls of the shelves belong into `threads`."""

    files: FileStore
    batches: BatchStore
    worker: Worker
    threads: StoreThreads
    store: Closable
    max_file_bytes: int

    async def close(self) -> None:
        """Stop the work, and leave the store."""
        await self.worker.stop()
        self.threads.close()
        self.store.close()


OpenBatchService = Callable[[AskLine, CheckModel, BatchObserver], BatchService]
"""Builds the batch_service for an application that asks lines in its own way."""
