"""The end of the process, noticed when it begins: servers tell an application only after its connections have ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

from distilgpt2_api.engine.async_engine import AsyncEngine

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

SignalHandler = Callable[[int, FrameType | None], object]


class DrainOnSignal:
    """Calls `engine.drain` at the first SIGTERM or SIGINT, then whatever handler the server had; a context manager.

    Works in front of Uvicorn's handlers, bare or in a Gunicorn worker. Outside the main thread, where signals can't be
    handled, it does nothing.
    """

    def __init__(self, engine: AsyncEngine, *, drain_s: float) -> None:
        self._engine = engine
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin)
        handler = self._previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    def _begin(self) -> None:
        if self._task is None:
            logger.info("draining: %d requests have %g s to end", self._engine.num_requests, self._drain_s)
            self._task = self._loop.create_task(self._engine.drain(self._drain_s))
