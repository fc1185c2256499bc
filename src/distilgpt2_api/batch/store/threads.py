"""The store's calls, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class StoreThreads:
    """A call that has begun is finished: whoever is cancelled meanwhile waits for its end."""

    def __init__(self, *, num_threads: int) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="batch-store")

    async def call(
        self, function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        """For what is soon done."""
        return await self._run(lambda: function(*arguments, **options), on_cancel=lambda: None)

    async def call_long(self, function: Callable[[threading.Event], Result]) -> Result:
        """For what may take long: the event says that nobody waits for it any more."""
        stopping = threading.Event()
        return await self._run(lambda: function(stopping), on_cancel=stopping.set)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[[], Result], *, on_cancel: Callable[[], None]) -> Result:
        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # it is nobody's any more
            raise
