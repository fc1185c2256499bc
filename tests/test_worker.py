"""Our Gunicorn worker."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from distilgpt2_api.engine_preload import claim_preload
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.settings import Settings
from distilgpt2_api.worker import Worker


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
