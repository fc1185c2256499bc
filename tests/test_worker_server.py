"""The Uvicorn server of our Gunicorn worker."""

from __future__ import annotations

import asyncio
import os

import pytest
import structlog
import uvicorn

from distilgpt2_api.server.lifecycle.worker_group import WorkerGroup
from distilgpt2_api.worker_server import ControlledServer, trusted_proxies, warn_if_open


@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        ([("0.0.0.0", 8000)], ["0.0.0.0"]),
        ([("127.0.0.1", 8000), ("::", 8000, 0, 0)], ["::"]),
        ([("192.0.2.1", 8000)], ["192.0.2.1"]),
        ([("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/socket"], None),
    ],
)
def test_an_open_service_without_keys_logs_one_warning(addresses: list[object], named: list[str] | None) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_if_open(addresses)
    assert [(line["log_level"], line["addresses"]) for line in lines] == ([("warning", named)] if named else [])


@pytest.mark.parametrize(("named", "trusted"), [(["10.0.0.1"], ["10.0.0.1", "unix:"]), ([], ["unix:"]), (["*"], ["*"])])
def test_the_proxy_on_a_unix_socket_is_always_trusted(named: list[str], trusted: list[str]) -> None:
    assert trusted_proxies(named) == trusted


class FakeWorker:
    """The parts of a worker that its server uses."""

    def __init__(self) -> None:
        self.group = WorkerGroup()
        self.ppid = os.getppid()
        self.num_heartbeats = 0

    def notify(self) -> None:
        self.num_heartbeats += 1


def test_the_heartbeat_does_not_depend_on_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock is set back by a day, the master must not kill a healthy worker."""
    worker = FakeWorker()
    server = ControlledServer(uvicorn.Config(app="nothing:app"), worker)  # type: ignore[arg-type]  # a fake with the parts that count
    now_s = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now_s)

    async def play() -> None:
        nonlocal now_s
        for counter in range(40):
            now_s -= 86_400.0
            await server.on_tick(counter)

    asyncio.run(play())
    assert worker.num_heartbeats == 4
