"""Gunicorn's worker, as far as it is ours."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import uvicorn

from distilgpt2_api.engine_load import engine_load
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.settings import Settings
from distilgpt2_api.worker import ControlledServer, Siblings, Worker, warn_of_strangers


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


def worker_of(wsgi: Callable[[], object], *, is_preloaded: bool) -> Worker:
    """As much of a worker as imports its application."""
    worker = Worker.__new__(Worker)
    worker.cfg, worker.app = SimpleNamespace(preload_app=is_preloaded), SimpleNamespace(wsgi=wsgi)
    return worker


@pytest.mark.parametrize("is_preloaded", [False, True])
def test_the_application_is_imported_beside_its_model(
    is_preloaded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And without a look for garbage; not beside, where the master has imported it before the fork."""
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    seen = []

    def wsgi() -> object:
        load = engine_load(Settings())
        seen.append((load.is_begun, gc.isenabled()))
        load.result().close()
        return load

    worker = worker_of(wsgi, is_preloaded=is_preloaded)
    worker.load_wsgi()

    assert seen == [(not is_preloaded, False)]
    assert worker.wsgi is not None
    assert gc.isenabled()


def test_an_application_that_can_not_be_imported_ends_the_worker_as_it_says() -> None:
    def wsgi() -> object:
        raise SystemExit(4)

    with pytest.raises(SystemExit) as end:
        worker_of(wsgi, is_preloaded=True).load_wsgi()

    assert end.value.code == 4
    assert gc.isenabled()


EARLY_END = """
import signal
from types import SimpleNamespace
from distilgpt2_api.worker import Worker

def wsgi():
    try:
        signal.raise_signal(signal.SIGTERM)
    except SystemExit:
        raise ImportError("initialization failed") from None

worker = Worker.__new__(Worker)
worker.cfg, worker.app, worker.age = SimpleNamespace(preload_app=True, workers=1), SimpleNamespace(wsgi=wsgi), 1
worker.init_signals()
worker.load_wsgi()
"""


def test_a_signal_amid_an_import_ends_the_worker_in_peace() -> None:
    """Some libraries make an error of their own out of an exception that comes while they are imported."""
    result = subprocess.run([sys.executable, "-c", EARLY_END], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
