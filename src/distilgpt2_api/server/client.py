"""The client at the other end: is it still there?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starlette.types import Receive


class ClientWatch:
    """Watches for the client's hang-up while its answer is being made; a context manager.

    Servers differ in how a broken connection shows itself in `send`; that `receive` says so, all agree. The request's
    body must have been read. `on_gone` is called once, on the event loop.
    """

    def __init__(self, receive: Receive, *, on_gone: Callable[[], None]) -> None:
        self._receive = receive
        self._on_gone = on_gone
        self._task: asyncio.Task[None] | None = None
        self.is_gone = False

    def __enter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self._on_gone()
