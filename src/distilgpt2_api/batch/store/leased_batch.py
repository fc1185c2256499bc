"""A batch under a lease: keeps the lease, follows the batch's state and writes results to the store."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from distilgpt2_api.batch.store.leases import LEASE_S, Leases
from distilgpt2_api.batch.store.objects import BatchStatus, LineResult, StoredBatch
from distilgpt2_api.batch.store.ports import BatchObserver
from distilgpt2_api.batch.store.threads import StoreThreads
from distilgpt2_api.core.errors import StoreError

logger = logging.getLogger(__name__)

RENEW_S = LEASE_S / 4
RECORD_S = 0.25
"""How long a result may wait to be written together with others. A kill costs this much work."""
RETRY_S = 1.0
GIVE_BACK_S = 2.0
"""At shutdown, a store that doesn't answer is given up after this time. The lease then expires."""
MAX_UNRECORDED = 1024
"""Results kept in memory while the store can't be written. At this number, no more lines are answered."""


class LeasedBatch:
    """Mutable; event loop only. Results are kept until they are written, even if the store fails.

    The store's answer counts even if the task that waits for it is cancelled: the batch has changed, so its state here
    follows.
    """

    def __init__(
        self,
        batch: StoredBatch,
        *,
        leases: Leases,
        threads: StoreThreads,
        observer: BatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self.batch = batch
        self.is_over = asyncio.Event()
        """No more lines should be answered: the batch is cancelled or its completion window is over."""
        self._leases = leases
        self._threads = threads
        self._observer = observer
        self._clock = clock
        self._unrecorded: list[LineResult] = []
        self._has_results = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._changing = asyncio.Lock()
        """One change at a time, so that the states here follow each other as in the store."""

    @property
    def is_late(self) -> bool:
        return self._clock() >= self.batch.expires_s

    def add(self, result: LineResult) -> None:
        """Queues a result; it is written soon."""
        self._unrecorded.append(result)
        self._has_results.set()
        if len(self._unrecorded) >= MAX_UNRECORDED:
            self._has_room.clear()

    async def wait_for_room(self) -> None:
        await self._has_room.wait()

    async def keep(self) -> None:
        """Writes results as they arrive and follows the batch's state, without end. Raises LeaseLostError."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_results.wait(), RENEW_S)
                await asyncio.sleep(RECORD_S)
            if self._unrecorded:
                await self.flush()
            else:
                await self.change(self._leases.renew)
            if self.is_late or self.batch.status is BatchStatus.CANCELLING:
                self.is_over.set()

    async def flush(self) -> None:
        """Returns when all results are written. Raises LeaseLostError."""
        async with self._changing:
            while self._unrecorded:
                results = self._unrecorded[:]
                await self._change(partial(self._leases.record, results=results), partial(self._on_written, results))
            self._has_results.clear()
            self._has_room.set()

    async def change(self, function: Callable[[StoredBatch], StoredBatch]) -> None:
        """Calls `function` with the batch in a thread, again until the store works. Raises LeaseLostError."""
        async with self._changing:
            await self._change(function, self._on_changed)

    async def give_back(self) -> None:
        """Writes the results and releases the lease, if the store allows it."""
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self.flush()
                await self._threads.call(self._leases.give_back, self.batch)
        except TimeoutError:
            logger.warning("batch %s is not given back: its lease must expire", self.batch.batch_id)

    async def _change(
        self, function: Callable[[StoredBatch], StoredBatch], apply: Callable[[StoredBatch], None]
    ) -> None:
        has_failed = False
        while True:
            try:
                await self._threads.call_and_apply(partial(function, self.batch), apply)
            except StoreError as error:
                if not has_failed:
                    logger.error(  # noqa: TRY400 - the store has logged the rest
                        "batch %s is paused until the store works again: %s", self.batch.batch_id, error
                    )
                has_failed = True
                await asyncio.sleep(RETRY_S)
            else:
                if has_failed:
                    logger.info("batch %s continues: the store works again", self.batch.batch_id)
                return

    def _on_changed(self, batch: StoredBatch) -> None:
        self.batch = batch

    def _on_written(self, results: list[LineResult], batch: StoredBatch) -> None:
        self.batch = batch
        del self._unrecorded[: len(results)]
        num_completed = sum(result.is_success for result in results)
        self._observer.on_lines(num_completed=num_completed, num_failed=len(results) - num_completed)
