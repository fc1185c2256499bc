"""Our Gunicorn worker."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import uvicorn

from distilgpt2_api.engine_preload import claim_preload
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.server.lifecycle.worker_group import WorkerGroup
from distilgpt2_api.settings import Settings
from distilgpt2_api.worker import ControlledServer, Worker, trusted_proxies, warn_if_open


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
        self.config = uvicorn.Config(app="nothing:app")
        self.group = WorkerGroup()
        self.ppid = os.getppid()
        self.num_heartbeats = 0

    def notify(self) -> None:
        self.num_heartbeats += 1


def test_the_heartbeat_does_not_depend_on_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock is set back by a day, the master must not kill a healthy worker."""
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


def worker_of(wsgi: Callable[[], object], *, is_preloaded: bool) -> Worker:
    """A worker with the parts that import its application."""
    worker = Worker.__new__(Worker)
    worker.cfg, worker.app = SimpleNamespace(preload_app=is_preloaded), SimpleNamespace(wsgi=wsgi)
    return worker


@pytest.mark.parametrize("is_preloaded", [False, True])
def test_the_application_is_imported_while_its_model_loads(
    is_preloaded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without garbage collection; and not in parallel if the master imported it before the fork."""
    monkeypatch.setenv("DISTILGPT2_MODEL", str(BUNDLED_FOLDER))
    monkeypatch.setenv("DISTILGPT2_CACHE_HOME", str(tmp_path))
    seen = []

    def wsgi() -> object:
        preload = claim_preload(Settings())
        seen.append((preload.is_started, gc.isenabled()))
        preload.result().close()
        return preload

    worker = worker_of(wsgi, is_preloaded=is_preloaded)
    worker.load_wsgi()

    assert seen == [(not is_preloaded, False)]
    assert worker.wsgi is not None
    assert gc.isenabled()


def test_a_failed_import_ends_the_worker_with_its_exit_status() -> None:
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
        signal.raise_signal(NUMBER)
    except SystemExit:
        raise ImportError("initialization failed") from None

worker = Worker.__new__(Worker)
worker.cfg, worker.app, worker.age = SimpleNamespace(preload_app=True, workers=1), SimpleNamespace(wsgi=wsgi), 1
worker.init_signals()
worker.load_wsgi()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_during_an_import_ends_the_worker_cleanly(number: signal.Signals) -> None:
    """Some libraries turn an exception during their import into an error of their own."""
    program = EARLY_END.replace("NUMBER", str(int(number)))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
