"""Gunicorn's HUP under load: a new worker takes over from the old one, and no request is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import uvloop
from benchmarks.owned_process import children_of
from benchmarks.reliability.background_load import BackgroundLoad, wait_ready


def test_a_reload_loses_no_request(launch: Callable[..., Any]) -> None:
    """On new and kept-alive connections, and in streams longer than a drain. No request gets a 503."""
    server = launch(drain_s=0.3)
    server.wait_listening()
    server.wait_ready()

    async def reload_under_load() -> BackgroundLoad:
        old = children_of(server.process.pid)
        async with BackgroundLoad(server.port, num_clients=2, stream_tokens=1000) as load:
            server.signal(signal.SIGHUP)
            async with asyncio.timeout(20.0):
                while len(pids := children_of(server.process.pid)) != 1 or pids == old:  # noqa: ASYNC110 - processes
                    await asyncio.sleep(0.01)  # have no event for us
            await wait_ready(server.port, timeout_s=20.0)
        return load

    load = uvloop.run(reload_under_load())
    assert load.endings.keys() == {"new connections", "kept-alive connections", "streams"}
    assert [(kind, how) for _, kind, how in load.failures] == []
