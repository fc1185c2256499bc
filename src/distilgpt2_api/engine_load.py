"""The engine of the settings, which can be loaded while the server around it is still being imported.

Half of a start is importing and building the server, which is Python and takes one core; the other half is reading and
compiling the model, which is mostly not. This module imports nothing of the server.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.engine_thread import STOP_S
from distilgpt2_api.engine.factory import load_engine
from distilgpt2_api.observability.engine_metrics import EngineMetrics
from distilgpt2_api.observability.logs import configure_logging
from distilgpt2_api.settings import Settings

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may have the interpreter to itself while another waits. Imports hardly let go of it by themselves,
and what loads the model needs it for a moment between one long call and the next: with Python's 5 ms it waits for
longer than it works."""


def read_settings() -> Settings:
    """The settings, and the log as they want it. Raises SettingsError."""
    settings = Settings()
    configure_logging(level=settings.log_level.value, is_json=settings.has_json_logs(is_terminal=sys.stderr.isatty()))
    return settings


class EngineLoad:
    """An engine to be, and its metrics. It loads when `result` asks for it, or from `begin` on."""

    def __init__(self, settings: Settings) -> None:
        """Raises ModelError, SettingsError."""
        self.settings = settings
        self.location = settings.locate_model()
        self.config = settings.engine_config()
        self.registry = CollectorRegistry()
        self.metrics = EngineMetrics(self.registry)
        self.is_taken = False
        self._thread: threading.Thread | None = None
        self._engine: Future[Engine] = Future()

    @property
    def is_begun(self) -> bool:
        return self._thread is not None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self) -> None:
        """Load on a thread of its own, from now on. A process that ends meanwhile waits for it, within `STOP_S`:
        kernels that compile while the interpreter is taken down would end it by a signal.
        """
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        atexit.register(self._thread.join, STOP_S)

    def result(self) -> Engine:
        """The engine, now or when it is there; for the thread that is to run it. Raises ModelError."""
        if self._thread is None:
            return self._load()
        atexit.unregister(self._thread.join)  # whoever stops that thread waits for it
        return self._engine.result()

    def _run(self) -> None:
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            engine = self._load()
        except BaseException as error:  # noqa: BLE001 - whoever asks for the engine gets it
            sys.setswitchinterval(interval_s)
            self._engine.set_exception(error)
        else:
            sys.setswitchinterval(interval_s)
            self._engine.set_result(engine)

    def _load(self) -> Engine:
        return load_engine(
            self.location.folder,
            self.config,
            cache_folder=self.settings.cache_home,
            observer=self.metrics,
            report=structlog.stdlib.get_logger("distilgpt2_api").info,
        )


_begun: list[EngineLoad] = []
"""In a worker one, which the application takes."""


def begin_load() -> None:
    """Load the engine that the application will want, which is about to be imported. What is wrong with the settings
    or the model it will find for itself, and say.
    """
    with suppress(Distilgpt2ApiError):
        load = EngineLoad(read_settings())
        load.begin()
        _begun.append(load)


def engine_load(settings: Settings) -> EngineLoad:
    """The load that has begun, if it is that of these settings, else one that has not.

    Raises ModelError, SettingsError.
    """
    if _begun and not _begun[-1].is_taken:
        load = _begun[-1]
        load.is_taken = True
        if load.settings == settings:
            return load
        structlog.stdlib.get_logger("distilgpt2_api").warning(
            "the settings changed while the application was imported: another model loads beside the first"
        )
    return EngineLoad(settings)


def leave_at_once(status: int) -> None:
    """End the process if a load that has begun is still running, else do nothing.

    It can't be told to stop, and a process that is to end before it serves should not wait for it.
    """
    if any(load.is_running for load in _begun):
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)
