"""Loads the engine in parallel with the import of the server.

About half of a start is importing and building the server: Python, on one core. The other half is reading and
compiling the model, mostly outside the interpreter. This module therefore imports nothing of the server.
"""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.engine_thread import STOP_S
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.model.kernels.process_memory import release_free_memory
from distilgpt2_api.observability.engine_metrics import EngineMetrics
from distilgpt2_api.observability.logs import configure_logging
from distilgpt2_api.settings import Settings

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter while another waits. Imports rarely release it, and the loading thread
needs it briefly between long native calls: with Python's default of 5 ms it would wait longer than it works."""


def read_settings() -> Settings:
    """Read the settings and configure the log. Raises SettingsError."""
    settings = Settings()
    configure_logging(level=settings.log_level.value, is_json=settings.has_json_logs(is_terminal=sys.stderr.isatty()))
    return settings


class EnginePreload:
    """An engine and its metrics. It loads on `start`, else on the first call of `result`."""

    def __init__(self, settings: Settings, *, report: Callable[[str], None] | None = None) -> None:
        """`report` gets notes about loading; without it they are logged. Raises ModelError, SettingsError."""
        self.settings = settings
        self.location = settings.locate_model()
        self.config = settings.engine_config()
        self.registry = CollectorRegistry()
        self.metrics = EngineMetrics(self.registry)
        self.is_claimed = False
        self._report = report or structlog.stdlib.get_logger("distilgpt2_api").info
        self._thread: threading.Thread | None = None
        self._engine: Future[Engine] = Future()

    @property
    def is_started(self) -> bool:
        return self._thread is not None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Load on a separate thread. If the process exits meanwhile, it waits up to `STOP_S` for that thread: the
        process would crash if kernels were still compiling while the interpreter shuts down.
        """
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        atexit.register(self._thread.join, STOP_S)

    def result(self) -> Engine:
        """The loaded engine. Blocks until it is there; call it on the thread that will run it. Raises ModelError."""
        if self._thread is None:
            return self._load()
        atexit.unregister(self._thread.join)  # the engine's thread is joined by its owner
        return self._engine.result()

    def _run(self) -> None:
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            engine = self._load()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            sys.setswitchinterval(interval_s)
            self._engine.set_exception(error)
        else:
            sys.setswitchinterval(interval_s)
            self._engine.set_result(engine)

    def _load(self) -> Engine:
        engine = load_engine(
            self.location.folder,
            self.config,
            cache_folder=self.settings.cache_home,
            observer=self.metrics,
            report=self._report,
        )
        release_free_memory()
        return engine


_started: list[EnginePreload] = []
"""A worker starts one; the application claims it."""


def start_preload() -> None:
    """Start loading the engine that the application will claim once it is imported.

    Errors in the settings or the model are ignored here: the application meets and reports them.
    """
    with suppress(Distilgpt2ApiError):
        preload = EnginePreload(read_settings())
        preload.start()
        _started.append(preload)


def claim_preload(settings: Settings) -> EnginePreload:
    """The started preload if it has these settings, else a new one that is not started.

    Raises ModelError, SettingsError.
    """
    if _started and not _started[-1].is_claimed:
        preload = _started[-1]
        preload.is_claimed = True
        if preload.settings == settings:
            return preload
        structlog.stdlib.get_logger("distilgpt2_api").warning(
            "the settings changed while the application was imported: a second model is loaded beside the first"
        )
    return EnginePreload(settings)


def exit_now(status: int) -> None:
    """End the process if a preload is still running, else do nothing.

    A load can't be interrupted, and a process that exits before it serves should not wait for it.
    """
    if any(preload.is_running for preload in _started):
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)
