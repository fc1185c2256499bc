"""The end of the process, noticed when it begins: servers tell an application only after its connections have ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import Self

from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.server.lifecycle.server_control import ServerControl

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_S = 0.1
"""How often a process that has a successor looks whether it may go."""


@dataclass(slots=True)
class Departure:
    """Mutable: whether this process is about to end, so that no connection should be kept for more requests."""

    is_near: bool = False
    num_answering: int = 0
    """HTTP requests that have come and have not had their whole answer."""


class DrainOnSignal:
    """Ends the work at the first SIGTERM or SIGINT, and only then lets the server have the signal; a context manager.

    Meanwhile the server goes on to accept connections and answer: `not ready` to probes, 503 to new work. A process
    that has a successor leaves both to it at once, and ends what it has in peace. A second SIGINT ends it all at once.
    Works in front of Uvicorn's handlers, bare or in a Gunicorn worker. Outside the main thread, where signals can't be
    handled, it does nothing.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        departure: Departure,
        *,
        drain_s: float,
        max_request_s: float,
        control: ServerControl | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`before`: what ends first, before anybody waits for requests."""
        self._engine = engine
        self._departure = departure
        self._drain_s = drain_s
        self._max_request_s = max_request_s
        self._control = control
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        if self._task is not None:
            self._task.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._loop.call_soon_threadsafe(self._begin, number)
        elif number == signal.SIGINT:
            self._pass_on(number, frame)

    def _begin(self, number: int) -> None:
        self._task = self._loop.create_task(self._end_work(number))

    async def _end_work(self, number: int) -> None:
        self._departure.is_near = True
        control = self._control
        if control is not None:
            control.announce_shutdown()
        if self._before is not None:
            await self._before()
        if control is not None and control.is_superseded:
            logger.info("replaced: %d requests may end in peace", self._engine.num_requests)
            control.stop_accepting()
            await self._end_in_peace(control)
        else:
            logger.info("draining: %d requests have %g s to end", self._engine.num_requests, self._drain_s)
            await self._engine.drain(self._drain_s)
        self._pass_on(number, None)

    async def _end_in_peace(self, control: ServerControl) -> None:
        """Serve the connections that are there, none of which is kept after its next answer.

        Requests may take as long as any; a connection without one is given `drain_s` to bring one.
        """
        began_s = self._loop.time()
        while not control.is_service_ending:
            seconds = self._loop.time() - began_s
            is_done = self._engine.is_idle and not self._departure.num_answering
            has_waited = not control.num_connections or seconds >= self._drain_s
            if (is_done and has_waited) or seconds >= self._max_request_s:
                break
            await asyncio.sleep(LOOK_S)
        await self._engine.drain(self._drain_s)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
