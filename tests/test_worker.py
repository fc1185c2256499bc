"""Gunicorn's worker, as far as it is ours."""

from __future__ import annotations

import asyncio
import os

import pytest
import structlog
import uvicorn

from distilgpt2_api.worker import ControlledServer, Siblings, warn_of_strangers


@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        ([("0.0.0.0", 8000)], ["0.0.0.0"]),
        ([("127.0.0.1", 8000), ("::", 8000, 0, 0)], ["::"]),
        ([("192.0.2.1", 8000)], ["192.0.2.1"]),
        ([("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/socket"], None),
    ],
)
def test_who_listens_to_strangers_without_keys_is_told_so_in_one_line(
    addresses: list[object], named: list[str] | None
) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_strangers(addresses)
    assert [(line["log_level"], line["addresses"]) for line in lines] == ([("warning", named)] if named else [])


class FakeWorker:
    """As much of a worker as its server needs."""

    def __init__(self) -> None:
        self.config = uvicorn.Config(app="nothing:app")
        self.num_heartbeats = 0

    def notify(self) -> None:
        self.num_heartbeats += 1


def test_the_heartbeat_goes_on_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back by a day it must not make the master kill a healthy worker."""
    worker = FakeWorker()
    server = ControlledServer(worker)  # type: ignore[arg-type]  # a fake with the parts that count
    now_s = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now_s)

    async def play() -> None:
        nonlocal now_s
        for counter in range(40):
            now_s -= 86_400.0
            await server.on_tick(counter)

    asyncio.run(play())
    assert worker.num_heartbeats == 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_siblings_know_how_many_were_started_and_whether_all_is_to_end() -> None:
    """Across a fork, in both directions; who is started anew does not end."""
    siblings = Siblings()
    siblings.note_started(7)
    child = os.fork()
    if not child:
        siblings.note_service_ending()
        os._exit(siblings.youngest_age)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert siblings.is_service_ending
    siblings.note_started(8)
    assert (siblings.youngest_age, siblings.is_service_ending) == (8, False)
