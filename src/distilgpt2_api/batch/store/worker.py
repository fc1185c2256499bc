"""The worker: claims batches in the store and answers them, as long as the process runs."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from distilgpt2_api.batch.store.batches import Batches
from distilgpt2_api.batch.store.leases import LeaseLostError
from distilgpt2_api.batch.store.run import BatchRun, RunParts
from distilgpt2_api.core.errors import EngineFailedError, StoreError

logger = logging.getLogger(__name__)

MAX_BATCHES = 4
"""Batches worked on at once, so that one long batch doesn't block all other callers."""
POLL_S = 1.0
"""How often it looks for batches that other processes have created or given up."""
SWEEP_S = 60.0
STOP_S = 3.0
"""At shutdown, a store that doesn't answer is given up after this time. Leases then expire."""


class BatchWorker:
    """Claims batches, of different callers first, and works on several concurrently. Event loop only."""

    def __init__(self, parts: RunParts, batches: Batches, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._batches = batches
        self._clock = clock
        self._runs: dict[asyncio.Task[None], BatchRun] = {}
        self._is_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Looks for batches now."""
        self._is_wanted.set()

    async def stop(self) -> None:
        """Writes all answers and gives the batches back, so that other workers can continue. Idempotent."""
        self._is_stopping = True
        self.wake()
        if self._task is not None:
            # Not cancelled, so that a batch it has just claimed has a run, which is cancelled below.
            await asyncio.wait({self._task}, timeout=STOP_S)
        for task in self._runs:
            task.cancel()
        if self._runs:
            await asyncio.wait(self._runs, timeout=STOP_S)

    async def _run(self) -> None:
        swept_s = -math.inf
        is_troubled = False
        while not self._is_stopping:
            self._is_wanted.clear()
            try:
                if self._clock() - swept_s >= SWEEP_S:
                    await self._parts.threads.call(self._parts.files.sweep)
                    await self._parts.threads.call(self._batches.sweep)
                    swept_s = self._clock()
                await self._claim()
                is_troubled = False
            except StoreError as error:
                if not is_troubled:
                    logger.error(  # noqa: TRY400 - the store has logged the rest
                        "no batches are claimed until the store works again: %s", error
                    )
                is_troubled = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_wanted.wait(), POLL_S)

    async def _claim(self) -> None:
        """Claims batches, up to MAX_BATCHES."""
        while len(self._runs) < MAX_BATCHES and not self._is_stopping:
            runs = self._runs.values()
            batch = await self._parts.threads.call(
                self._parts.leases.claim,
                callers=[run.caller for run in runs],
                held=[run.batch_id for run in runs],
            )
            if batch is None:
                return
            logger.info("batch %s is claimed: %s", batch.batch_id, batch.status.value)
            run = BatchRun(batch, self._parts)
            task = asyncio.create_task(self._work(run, batch.batch_id))
            self._runs[task] = run
            task.add_done_callback(self._forget)

    async def _work(self, run: BatchRun, batch_id: str) -> None:
        try:
            await run.work()
        except LeaseLostError:
            logger.warning("batch %s: another worker has taken over", batch_id)
        except (StoreError, EngineFailedError) as error:
            logger.error("batch %s is postponed: %s", batch_id, error)  # noqa: TRY400 - the rest has been logged
            await asyncio.sleep(POLL_S)
        except Exception:
            logger.exception("batch %s is postponed", batch_id)
            await asyncio.sleep(POLL_S)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._runs[task]
        self.wake()
