"""Graceful shutdown from the signal on: servers tell an application only after its connections have closed."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Self

from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.server.lifecycle.server_control import ServerControl

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL_S = 0.1
"""How often a superseded process checks whether it can exit."""


@dataclass(slots=True)
class ShutdownState:
    """Mutable: whether this process is about to exit, and the requests that it still serves."""

    is_imminent: bool = False
    """Connections then close after their next response."""
    num_in_flight: int = 0
    """HTTP requests without a complete response."""


@dataclass(slots=True, kw_only=True)
class DrainOnSignal:
    """Drains the engine on the first SIGTERM or SIGINT, then passes the signal to the server; a context manager.

    While it drains, the server still accepts connections and answers: probes get `not ready`, new requests 503. A
    superseded process stops accepting at once and completes its requests.

    An interrupt (SIGINT) during the drain ends the process at once. In a superseded process, which a reload drains,
    only the second one does.

    Installed in front of Uvicorn's handlers, bare or in a Gunicorn worker. Does nothing outside the main thread, which
    alone can handle signals.
    """

    engine: AsyncEngine
    shutdown: ShutdownState
    drain_s: float
    max_request_s: float
    control: ServerControl | None = None
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited first, before requests are drained."""
    exit_process: Callable[[int], object] = os._exit
    _loop: asyncio.AbstractEventLoop = field(init=False, default_factory=asyncio.get_running_loop)
    _task: asyncio.Task[None] | None = field(init=False, default=None)
    _has_begun: bool = field(init=False, default=False)
    _is_service_told: bool = field(init=False, default=False)
    """A signal has meant the whole service, not only this process."""
    _previous: dict[signal.Signals, object] = field(init=False, default_factory=dict)

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

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._is_service_told = self.control is None or not self.control.is_superseded
            self._loop.call_soon_threadsafe(self._begin, number)
        elif number == signal.SIGINT and not self._is_service_told:
            self._is_service_told = True
        elif number == signal.SIGINT:
            logger.warning("interrupted: exiting without completing %d requests", self.shutdown.num_in_flight)
            self.exit_process(0)

    def _begin(self, number: int) -> None:
        self._task = self._loop.create_task(self._drain_and_pass_on(number))

    async def _drain_and_pass_on(self, number: int) -> None:
        self.shutdown.is_imminent = True
        control = self.control
        if control is not None:
            control.announce_shutdown()
        if self.before is not None:
            await self.before()
        if control is not None and control.is_superseded:
            logger.info("superseded: completing %d requests", self.engine.num_requests)
            control.stop_accepting()
            await self._complete_requests(control)
        else:
            logger.info("draining: %d requests have %g s to complete", self.engine.num_requests, self.drain_s)
            await self.engine.drain(self.drain_s)
        self._pass_on(number)

    async def _complete_requests(self, control: ServerControl) -> None:
        """Serve the open connections, each of which closes after its next response.

        A request may take `max_request_s`, as always; an idle connection has `drain_s` to send one.
        """
        began_s = self._loop.time()
        while not control.is_service_ending:
            seconds = self._loop.time() - began_s
            is_done = self.engine.is_idle and not self.shutdown.num_in_flight
            has_waited = not control.num_connections or seconds >= self.drain_s
            if (is_done and has_waited) or seconds >= self.max_request_s:
                break
            await asyncio.sleep(POLL_S)
        await self.engine.drain(self.drain_s)

    def _pass_on(self, number: int) -> None:
        handler = self._previous[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
