"""Gunicorn's worker: `gunicorn distilgpt2_api.api:app --worker-class distilgpt2_api.worker.Worker`.

Gunicorn's master imports this module, and each worker is a fork of it. So it imports no server: `worker_server` does.
"""

import gc
import os
import signal
import ssl
import sys
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # Gunicorn has no types
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]  # the same
from gunicorn.workers.base import Worker as GunicornWorker  # type: ignore[import-untyped]  # the same

from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.core.exit_status import EXIT_SETTINGS
from distilgpt2_api.core.processor import is_supported
from distilgpt2_api.lean_imports import lean_imports
from distilgpt2_api.observability.start_errors import is_not_gunicorns_exit, write_start_error
from distilgpt2_api.server.lifecycle.worker_group import SHUTDOWN_SIGNALS, WorkerGroup
from distilgpt2_api.settings import (
    Settings,
    export_to_environment,
    keep_blas_single_threaded,
    read_log_format,
)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SHUTDOWN_SIGNALS)


os.register_at_fork(after_in_parent=_unblock_signals)


class Worker(GunicornWorker):  # type: ignore[misc]  # an untyped base
    """Serves the application with Uvicorn: with limits on connections and on the shutdown's duration, a clean exit, and
    a reload that loses no request.

    With several workers, each is told how many there are.
    """

    group: ClassVar = WorkerGroup()
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """In the master, before the fork."""
        super().__init__(*args, **kwargs)
        self.log.error_log.addFilter(is_not_gunicorns_exit)
        if self.cfg.preload_app and self.cfg.workers > 1:
            # The application would be built once, without the number of workers that share cores and memory.
            raise HaltServer("error: preload_app works only with one worker; unset it for several", EXIT_SETTINGS)
        if self.cfg.workers > 1 and self.age == 1:
            self.log.warning(
                "%d workers: each has its own queue, limits and metrics. /metrics shows the metrics of the worker that"
                " answers, with its pid as a label. One worker is recommended",
                self.cfg.workers,
            )
        self.group.record_start(self.age)
        self.group.watch_signals()
        # A signal that arrives before the worker installs its handlers would be lost to the handlers that it inherits
        # from the master. The parent unblocks signals right after the fork, the child in `init_signals`.
        signal.pthread_sigmask(signal.SIG_BLOCK, SHUTDOWN_SIGNALS)

    def init_process(self) -> None:
        """In the worker: a re-executed master must not inherit the variables that are set here."""
        export_to_environment({"num_workers": self.cfg.workers})
        keep_blas_single_threaded()
        from distilgpt2_api.model.kernels.process_memory import keep_little_free_memory  # noqa: PLC0415 - as the server

        keep_little_free_memory()
        super().init_process()

    def load_wsgi(self) -> None:
        """Import the application while its model loads, without garbage collection: modules live for good.

        If the master has already imported it (`preload_app`), the application loads its model itself.
        """
        gc.disable()
        try:
            if not is_supported():
                super().load_wsgi()  # it reports the processor
            elif self.cfg.preload_app:
                super().load_wsgi()
                self.tls = load_certificate()
            else:
                self._import_during_preload()
        finally:
            gc.enable()

    def _import_during_preload(self) -> None:
        # Imports the kernels, which takes 0.2 s and which the master does not need.
        from distilgpt2_api.engine_preload import exit_now, start_preload  # noqa: PLC0415 - the reason stands above

        try:
            start_preload()
            with lean_imports():
                import distilgpt2_api.worker_server  # noqa: F401, PLC0415 - before the application freezes what is imported

                super().load_wsgi()
            self.tls = load_certificate()
        except SystemExit as end:  # the settings are wrong, and the error has been printed
            exit_now(end.code if isinstance(end.code, int) else Arbiter.WORKER_BOOT_ERROR)
            raise

    def init_signals(self) -> None:
        """Uvicorn replaces these handlers while it serves, and raises the signal again when it is done. Gunicorn's own
        would hide from the master how a worker ended.
        """
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)  # reopens log files
        signal.siginterrupt(signal.SIGUSR1, False)
        for number in SHUTDOWN_SIGNALS:
            signal.signal(number, self._exit_early)
        _unblock_signals()

    def run(self) -> None:
        """Serve until a signal ends the worker."""
        from distilgpt2_api.worker_server import serve  # noqa: PLC0415 - Uvicorn and more, which the master does not need

        serve(self)

    @property
    def is_superseded(self) -> bool:
        """Whether a reload has started a full set of younger workers; the master then ends the old ones."""
        return bool(self.group.youngest_age >= self.age + self.cfg.workers)

    def announce_shutdown(self) -> None:
        """Tell the group that this worker ends; if no younger one replaces it, the service ends."""
        if not self.is_superseded:
            self.group.announce_service_end()

    def _exit_early(self, _number: int, _frame: FrameType | None) -> None:
        """Exit immediately. Before it serves, a worker has nothing to clean up; a load can't be interrupted; and a
        library that is being imported could turn an exception into an error of its own.
        """
        self.announce_shutdown()
        os._exit(0)


def load_certificate() -> ssl.SSLContext | None:
    """The server's side of TLS, if the settings want it. Exits with one line if the certificate can't be used."""
    try:
        return Settings().tls_context()
    except SettingsError as error:
        sys.exit(write_start_error(error, is_json=read_log_format().is_json(is_terminal=sys.stderr.isatty())))
