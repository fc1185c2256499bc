"""Background clients of several kinds that keep sending, whatever happens to the server, and count the endings."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from benchmarks.reliability.http_exchange import FINISH, Connection, build_completion, build_get, name_failure, try_once

PAUSE_AFTER_FAILURE_S = 0.01
REQUEST_TIMEOUT_S = 30.0
PROPER = {"200", FINISH}


class BackgroundLoad:
    """Owns its clients; an async context manager that lets each finish its last request.

    `new connections` and `kept-alive connections` request a few tokens each time, `streams` many, `probes` readiness.
    A server that closes a kept-alive connection between two requests does not count as a failure.
    """

    def __init__(self, port: int, *, num_clients: int, stream_tokens: int) -> None:
        self._port = port
        self._stream_tokens = stream_tokens
        self._num_clients = num_clients
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self.endings: dict[str, Counter[str]] = {}
        self.failures: list[tuple[float, str, str]] = []
        """Time (`time.perf_counter`), kind and ending of each failure."""

    async def __aenter__(self) -> Self:
        for number in range(self._num_clients):
            self._tasks += [
                asyncio.create_task(self._run_on_new("new connections", number, 4)),
                asyncio.create_task(self._run_on_kept("kept-alive connections", number, 4)),
                asyncio.create_task(self._run_on_new("streams", number, self._stream_tokens)),
            ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    @property
    def num_failed(self) -> int:
        return len(self.failures)

    async def _run_on_new(self, kind: str, number: int, max_tokens: int) -> None:
        while not self._is_over:
            request = build_completion(f"{kind} {number}", max_tokens=max_tokens, stream=kind == "streams")
            await self._count(kind, await try_once(self._port, request, timeout_s=REQUEST_TIMEOUT_S))

    async def _run_on_kept(self, kind: str, number: int, max_tokens: int) -> None:
        request = build_completion(f"{kind} {number}", max_tokens=max_tokens)
        connection: Connection | None = None
        while not self._is_over:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    if connection is not None and connection.is_ended:
                        connection.close()
                        connection = None
                    if connection is None:
                        connection = await Connection.open(self._port)
                    answer = await connection.ask(request)
            except OSError as error:
                if connection is not None:
                    connection.close()
                connection = None
                await self._count(kind, name_failure(error))
                continue
            if answer.headers.get("connection") == "close" or not answer.is_whole:
                connection.close()
                connection = None
            await self._count(kind, answer.ending)
        if connection is not None:
            connection.close()

    async def _count(self, kind: str, ending: str) -> None:
        self.endings.setdefault(kind, Counter())[ending] += 1
        if ending not in PROPER:
            self.failures.append((time.perf_counter(), kind, ending))
            await asyncio.sleep(PAUSE_AFTER_FAILURE_S)


async def wait_ready(port: int, *, timeout_s: float, poll_s: float = 0.005) -> None:
    """Wait until /readyz answers 200. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            with suppress(TimeoutError):
                if await try_once(port, build_get("/readyz"), timeout_s=1.0) == "200":
                    return
            await asyncio.sleep(poll_s)
