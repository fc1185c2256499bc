"""Gunicorn's worker: `gunicorn distilgpt2_api.api:app --worker-class distilgpt2_api.worker.Worker`."""

import gc
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, ClassVar

import structlog
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # Gunicorn has no types
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]  # the same
from uvicorn import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # the package has no types

from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.core.exit_status import EXIT_SETTINGS
from distilgpt2_api.core.processor import is_supported
from distilgpt2_api.lean_imports import lean_imports
from distilgpt2_api.model.kernels.process_memory import keep_little_free_memory
from distilgpt2_api.observability.start_errors import is_not_gunicorns_exit, write_start_error
from distilgpt2_api.server.http.connections.connections import limited_protocol
from distilgpt2_api.server.http.connections.tls import tls_protocol
from distilgpt2_api.server.http.connections.unix_peer import UNIX_PEER
from distilgpt2_api.server.http.limits import ConnectionLimits
from distilgpt2_api.server.lifecycle.server_control import SERVER_CONTROL
from distilgpt2_api.server.lifecycle.worker_group import SHUTDOWN_SIGNALS, WorkerGroup
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.settings import (
    Settings,
    export_to_environment,
    keep_blas_single_threaded,
    read_log_format,
)
from distilgpt2_api.settings.host_resources import allow_open_files

FINAL_FLUSH_S = 0.5
"""After the drain, clients have this long to read the rest of their responses."""
TICKS_PER_HEARTBEAT = 10
"""Uvicorn ticks every 0.1 s."""


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SHUTDOWN_SIGNALS)


os.register_at_fork(after_in_parent=_unblock_signals)


class Worker(UvicornWorker):  # type: ignore[misc]  # an untyped base
    """Uvicorn in a Gunicorn worker. Adds limits on connections and on the shutdown's duration, a clean exit, and a
    reload that loses no request.

    With several workers, each is told how many there are.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": FINAL_FLUSH_S,
    }
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
                super().load_wsgi()
            self.tls = load_certificate()
        except SystemExit as end:  # the settings are wrong, and the error has been printed
            exit_now(end.code if isinstance(end.code, int) else Arbiter.WORKER_BOOT_ERROR)
            raise

    def init_signals(self) -> None:
        """Uvicorn replaces these handlers while it serves, and raises the signal again when it is done."""
        super().init_signals()
        for number in SHUTDOWN_SIGNALS:
            signal.signal(number, self._exit_early)
        _unblock_signals()

    def run(self) -> None:
        """Serve. The actual addresses are known only here."""
        if self.wsgi.state.service.access.is_open:
            warn_if_open([listener.getsockname() for listener in self.sockets])
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Gunicorn's signature
        """Handle SIGQUIT, which Gunicorn sends after a Ctrl-C. The base class only sets a flag, until it is killed."""
        signal.raise_signal(signal.SIGTERM)

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

    async def _serve(self) -> None:
        settings = Settings()  # valid: the application has been imported
        limits = ConnectionLimits(
            header_timeout_s=settings.header_timeout_s,
            max_header_bytes=settings.max_header_bytes,
            write_timeout_s=settings.write_timeout_s,
            max_connections=settings.choose_max_connections(),
        )
        allow_open_files(limits.max_connections)
        self.config.app = self.wsgi
        if self.tls is None:
            self.config.http = limited_protocol(limits, OPENAI_ERRORS)
        else:
            self.config.http = tls_protocol(limits, OPENAI_ERRORS, self.tls)
        self.config.forwarded_allow_ips = trusted_proxies(self.cfg.forwarded_allow_ips)
        server = ControlledServer(self)
        self._install_sigquit_handler()
        # Python's own sockets: uvloop knows that it shares only those, and closes no descriptor twice.
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ControlledServer(Server):
    """A worker's Uvicorn server. It is also the `ServerControl` that the application receives."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.config)
        self._worker = worker
        self._is_orphan = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._worker.announce_shutdown()  # the application may not be there yet to do it
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._worker.group.is_exit_demanded:
            signal.raise_signal(signal.SIGINT)
        # Uvicorn's own heartbeat uses the wall clock: if the clock is set back by an hour, it pauses for an hour and
        # the master kills a healthy worker.
        if counter % TICKS_PER_HEARTBEAT == 0:
            self._worker.notify()
            self._end_without_master()
        return await super().on_tick(counter)

    def _end_without_master(self) -> None:
        """Drain if the master was killed: the worker would keep the address, and nothing would end it."""
        if os.getppid() != self._worker.ppid and not self._is_orphan:
            self._is_orphan = True
            self._worker.log.error("the master process is gone: this worker drains and ends")
            signal.raise_signal(signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state[SERVER_CONTROL] = self
        await super().startup(sockets)

    @property
    def is_replacement(self) -> bool:
        return bool(self._worker.age > self._worker.cfg.workers)

    @property
    def is_superseded(self) -> bool:
        return self._worker.is_superseded

    @property
    def num_connections(self) -> int:
        return len(self.server_state.connections)

    @property
    def is_service_ending(self) -> bool:
        return self._worker.group.is_service_ending

    def announce_shutdown(self) -> None:
        self._worker.announce_shutdown()

    def stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    def note_alive(self) -> None:
        self._worker.notify()


def load_certificate() -> ssl.SSLContext | None:
    """The server's side of TLS, if the settings want it. Exits with one line if the certificate can't be used."""
    try:
        return Settings().tls_context()
    except SettingsError as error:
        sys.exit(write_start_error(error, is_json=read_log_format().is_json(is_terminal=sys.stderr.isatty())))


def trusted_proxies(addresses: list[str]) -> list[str]:
    """Gunicorn's `forwarded_allow_ips` and, as in Gunicorn's own workers, every client of a Unix socket: its file's
    permissions say who may connect.
    """
    return addresses if addresses == ["*"] else [*addresses, UNIX_PEER]


def warn_if_open(addresses: Iterable[object]) -> None:
    """Log one warning if other machines can reach one of these socket addresses. A Unix socket's is a path."""
    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if reachable := [host for host in hosts if not ipaddress.ip_address(host).is_loopback]:
        structlog.stdlib.get_logger("distilgpt2_api").warning(
            "no API keys are set: anyone who can reach the service can use it", addresses=reachable
        )
