"""Runs the store's blocking calls in threads."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class StoreThreads:
    """A call that has started always finishes: a task that is cancelled meanwhile waits for it."""

    def __init__(self, *, num_threads: int) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="batch-store")

    async def call(
        self, function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        """For short calls."""
        return await self._run(lambda: function(*arguments, **options), on_cancel=lambda: None)

    async def call_and_apply(self, function: Callable[[], Result], apply: Callable[[Result], None]) -> None:
        """Passes the result to `apply` on the event loop, even if the waiting task is cancelled meanwhile."""
        await self._run(function, on_cancel=lambda: None, apply=apply)

    async def call_long(self, function: Callable[[threading.Event], Result]) -> Result:
        """For long calls. The event is set when the result is no longer needed."""
        stopping = threading.Event()
        return await self._run(lambda: function(stopping), on_cancel=stopping.set)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        function: Callable[[], Result],
        *,
        on_cancel: Callable[[], None],
        apply: Callable[[Result], None] = lambda _: None,
    ) -> Result:
        def on_done(done: asyncio.Future[Result]) -> None:
            if not done.cancelled() and done.exception() is None:
                apply(done.result())

        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        future.add_done_callback(on_done)  # the first callback, so that the waiting task continues after it
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # retrieved, or asyncio would log it
            raise
