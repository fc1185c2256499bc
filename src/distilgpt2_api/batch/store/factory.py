"""Builds the batch service from all parts of the store."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from distilgpt2_api.batch.store.batches import Batches
from distilgpt2_api.batch.store.files import Files
from distilgpt2_api.batch.store.leases import Leases
from distilgpt2_api.batch.store.objects import StoreLimits
from distilgpt2_api.batch.store.ports import AskLine, BatchObserver, BatchService, CheckModel
from distilgpt2_api.batch.store.run import RunParts
from distilgpt2_api.batch.store.store import Store
from distilgpt2_api.batch.store.threads import StoreThreads
from distilgpt2_api.batch.store.worker import MAX_BATCHES, BatchWorker

NUM_THREADS = 2 * MAX_BATCHES
"""Long checks of whole inputs occupy at most half of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLimits:
    """Limits on one batch, and on all lines in flight."""

    max_file_bytes: int
    max_lines: int
    max_line_bytes: int
    max_lines_at_once: int


def build_batch_service(
    store: Store,
    ask: AskLine,
    check_model: CheckModel,
    observer: BatchObserver,
    *,
    store_limits: StoreLimits,
    work_limits: WorkLimits,
    clock: Callable[[], float] = time.time,
) -> BatchService:
    """The service owns `store` from now on. `clock`: Unix time, in seconds."""
    files = Files(store, store_limits, clock)
    batches = Batches(store, store_limits, clock)
    threads = StoreThreads(num_threads=NUM_THREADS)
    parts = RunParts(
        leases=Leases(store, store_limits, clock),
        files=files,
        threads=threads,
        ask=ask,
        check_model=check_model,
        observer=observer,
        slots=asyncio.Semaphore(work_limits.max_lines_at_once),
        max_lines=work_limits.max_lines,
        max_line_bytes=work_limits.max_line_bytes,
        clock=clock,
    )
    return BatchService(
        files=files,
        batches=batches,
        worker=BatchWorker(parts, batches),
        threads=threads,
        close_store=store.close,
        max_file_bytes=work_limits.max_file_bytes,
    )
