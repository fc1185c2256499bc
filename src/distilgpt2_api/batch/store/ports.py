"""The store's interface for a server. It imports no database: without a store, the packages need not be installed."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.batch.store.objects import BatchStatus, NewBatch, Page, StoredBatch, StoredFile
from distilgpt2_api.batch.store.threads import StoreThreads

AskLine = Callable[[str, InputLine], Awaitable[Answer]]
"""Answers a line on behalf of a caller. Raises UnavailableError if that isn't possible now."""

CheckModel = Callable[[str], None]
"""Raises InvalidRequestError for a model that is not served here."""


class BatchObserver(Protocol):
    """Notified on the event loop."""

    def on_lines(self, *, num_completed: int, num_failed: int) -> None:
        """Results of more lines have been written to the store."""

    def on_batch_ended(self, status: BatchStatus) -> None: ...


class FileStore(Protocol):
    """A caller's view of `Files`."""

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
    """A caller's view of `Batches`."""

    def create(self, new: NewBatch) -> StoredBatch: ...

    def find(self, batch_id: str, *, caller: str) -> StoredBatch: ...

    def list(self, *, caller: str, after: str | None, limit: int) -> Page[StoredBatch]: ...

    def cancel(self, batch_id: str, *, caller: str) -> StoredBatch: ...


class Worker(Protocol):
    """`BatchWorker`: answers the lines of batches."""

    def start(self) -> None: ...

    def wake(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchService:
    """Files, batches and their worker. Methods of `files` and `batches` block: call them in `threads`."""

    files: FileStore
    batches: BatchStore
    worker: Worker
    threads: StoreThreads
    close_store: Callable[[], None]
    max_file_bytes: int

    async def close(self) -> None:
        """Stops the worker and closes the store."""
        await self.worker.stop()
        self.threads.close()
        self.close_store()


OpenBatchService = Callable[[AskLine, CheckModel, BatchObserver], BatchService]
"""Builds the batch service for an application, which brings its own way to answer lines."""
