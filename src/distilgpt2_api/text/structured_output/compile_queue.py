"""A queue of calls that one thread makes one after another; all waiters for the same call share it."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from distilgpt2_api.core.errors import DrainingError, OverloadedError

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

CLOSED = "the service is shutting down"


@dataclass(slots=True)
class PendingCall(Generic[Result]):
    """Mutable: a call that is queued or running."""

    future: asyncio.Future[Result]
    num_waiters: int = 0


class CompileQueue(Generic[Key, Result]):
    """Owns the thread, which starts with the first call. For one event loop."""

    def __init__(self, call: Callable[[Key], Result], *, max_pending: int, too_many: str) -> None:
        """`call` runs on the thread; `too_many` is the message of the OverloadedError."""
        self._call = call
        self._max_pending = max_pending
        self._too_many = too_many
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._pending: dict[Key, PendingCall[Result]] = {}
        self._is_closed = False

    async def get(self, key: Key) -> Result:
        """The call's result; raises what the call raises.

        OverloadedError if `key` is new and `max_pending` calls are pending; any number may wait for a pending one.
        DrainingError if the queue is closed, before or during the wait. A cancelled waiter leaves the call to the
        others; if the last one leaves, the call is cancelled.
        """
        pending = self._pending.get(key)
        if self._is_closed:
            raise DrainingError(CLOSED)
        if pending is None:
            if len(self._pending) >= self._max_pending:
                raise OverloadedError(self._too_many)
            future = asyncio.wrap_future(self._thread.submit(self._call, key))
            pending = self._pending[key] = PendingCall(future)
        pending.num_waiters += 1
        try:
            await asyncio.wait({pending.future})
            if pending.future.cancelled():
                raise DrainingError(CLOSED)
            return pending.future.result()
        finally:
            pending.num_waiters -= 1
            if not pending.num_waiters:
                pending.future.cancel()
                del self._pending[key]

    def close(self) -> None:
        """End the thread and cancel calls that have not begun. Idempotent. Any thread may call it."""
        self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
