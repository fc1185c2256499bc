"""A claimed batch in the hands of its owner: its lease, how it stands, and results on their way to the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from distilgpt2_api.batch.store.leases import LEASE_S, Leases
from distilgpt2_api.batch.store.objects import BatchStatus, LineResult, StoredBatch
from distilgpt2_api.batch.store.ports import BatchObserver
from distilgpt2_api.batch.store.threads import StoreThreads
from distilgpt2_api.core.errors import StoreError

logger = logging.getLogger(__name__)

RENEW_S = LEASE_S / 4
RECORD_S = 0.25
"""How long a result may wait for others, to be written with them: what a kill costs to compute again."""
RETRY_S = 1.0
GIVE_BACK_S = 2.0
"""At the end of a process nobody waits longer for a store that does not answer: the lease will run out."""
MAX_UNRECORDED = 1024
"""Results kept in memory while the store can't be written: past it no more lines are asked."""


class LeasedBatch:
    """Mutable. Event loop only, but for `_write`. Results are kept until they are written, whatever the store says."""

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
        """No more lines are to be asked: it is cancelled, or out of time."""
        self._leases = leases
        self._threads = threads
        self._observer = observer
        self._clock = clock
        self._unrecorded: list[LineResult] = []
        self._has_results = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._writing = asyncio.Lock()

    @property
    def is_late(self) -> bool:
        return self._clock() >= self.batch.expires_s

    def add(self, result: LineResult) -> None:
        """To be written soon."""
        self._unrecorded.append(result)
        self._has_results.set()
        if len(self._unrecorded) >= MAX_UNRECORDED:
            self._has_room.clear()

    async def wait_for_room(self) -> None:
        await self._has_room.wait()

    async def keep(self) -> None:
        """Write results as they come, and look how the batch stands; never ends. Raises LeaseLostError."""
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
        """Return once all results are written. Raises LeaseLostError."""
        async with self._writing:
            while self._unrecorded:
                results = self._unrecorded[:]
                await self.change(lambda _held: self._write(results))  # noqa: B023 - it has ended by the next pass of the loop
                num_completed = sum(result.is_success for result in results)
                self._observer.on_lines(num_completed=num_completed, num_failed=len(results) - num_completed)
            self._has_results.clear()
            self._has_room.set()

    async def change(self, function: Callable[[StoredBatch], StoredBatch]) -> None:
        """Call it with the batch, in a thread, again and again until the store takes it. Raises LeaseLostError."""
        has_failed = False
        while True:
            try:
                self.batch = await self._threads.call(function, self.batch)
            except StoreError as error:
                if not has_failed:
                    logger.error(  # noqa: TRY400 - the store has told the rest
                        "batch %s stands still until the store works again: %s", self.batch.batch_id, error
                    )
                has_failed = True
                await asyncio.sleep(RETRY_S)
            else:
                if has_failed:
                    logger.info("batch %s goes on: the store works again", self.batch.batch_id)
                return

    async def give_back(self) -> None:
        """Write what there is, and let somebody else have the batch at once; as far as the store lets it."""
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self.flush()
                await self._threads.call(self._leases.give_back, self.batch)
        except TimeoutError:
            logger.warning("batch %s is not given back: its lease must run out", self.batch.batch_id)

    def _write(self, results: list[LineResult]) -> StoredBatch:
        """In a thread: what is written is out of the list, even where nobody waits for it any more."""
        batch = self._leases.record(self.batch, results)
        del self._unrecorded[: len(results)]
        return batch
