"""Gunicorn's worker: `gunicorn distilgpt2_api.api:app --worker-class distilgpt2_api.worker.Worker`."""

from __future__ import annotations

import atexit
import gc
import ipaddress
import mmap
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import structlog
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # Gunicorn has no types
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]  # the same
from uvicorn import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # the package has no types

from distilgpt2_api.observability.metrics_folder import make_metrics_folder, remove_metrics_folder
from distilgpt2_api.server.http.connections import ConnectionLimits, limited_protocol
from distilgpt2_api.server.lifecycle.server_control import SERVER_CONTROL
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.settings import EXIT_SETTINGS, Settings, export_to_environment, is_set
from distilgpt2_api.settings.open_files import allow_open_files

LAST_FLUSH_S = 0.5
"""For clients to read the last of their answers, after the drain."""
AGE_BYTES = 8
TICKS_PER_HEARTBEAT = 10
"""Of a tenth of a second each."""

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def _let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


os.register_at_fork(after_in_parent=_let_signals_in)


class Siblings:
    """What the workers of one master know of each other: a page of memory that they share from before the fork."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def youngest_age(self) -> int:
        """The master counts the workers that it has started: the last one's number."""
        return int.from_bytes(self._page[:AGE_BYTES], "little")

    @property
    def is_service_ending(self) -> bool:
        return self._page[AGE_BYTES] != 0

    def note_started(self, age: int) -> None:
        """The master starts a worker: the service does not end."""
        self._page[:AGE_BYTES] = age.to_bytes(AGE_BYTES, "little")
        self._page[AGE_BYTES] = 0

    def note_service_ending(self) -> None:
        self._page[AGE_BYTES] = 1


class Worker(UvicornWorker):  # type: ignore[misc]  # an untyped base
    """Uvicorn in a Gunicorn worker, with what the original leaves out: bounds on connections and on the shutdown, a
    clean exit, and a reload that loses no request.

    Where there are several, each is told how many they are, and where they share their metrics.
    """

    metrics_folders: ClassVar[list[Path]] = []
    """The master's one, made before the first worker that has others beside it."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": LAST_FLUSH_S,
    }
    siblings: ClassVar = Siblings()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """In the master, before the fork."""
        super().__init__(*args, **kwargs)
        if self.cfg.preload_app and self.cfg.workers > 1:
            # The application would be built once, before anybody knows that it is to share cores, memory and metrics.
            raise HaltServer("error: preload_app works with one worker; leave it out for several", EXIT_SETTINGS)
        if self.cfg.workers > 1 and not self.metrics_folders and not is_set("metrics_folder"):
            self.metrics_folders.append(make_metrics_folder())
            atexit.register(_remove_folder, self.metrics_folders[0], os.getpid())
        self.siblings.note_started(self.age)
        # A worker that is told to end before it has handlers of its own would hear nothing of it: they are the
        # master's until then. The parent lets signals in again right after the fork, the child in `init_signals`.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def init_process(self) -> None:
        """In the worker: a master that replaces this one does not inherit what is set here."""
        told: dict[str, object] = {"num_workers": self.cfg.workers}
        if self.metrics_folders and not is_set("metrics_folder"):
            told["metrics_folder"] = self.metrics_folders[0]
        export_to_environment(told)
        super().init_process()

    def load_wsgi(self) -> None:
        """Import the application, beside the model that it will serve, and without a look for garbage among what is
        made for good.

        Where the master has imported it before, nothing is left to do beside: the application loads its model itself.
        """
        gc.disable()
        try:
            if self.cfg.preload_app:
                super().load_wsgi()
            else:
                self._import_beside_load()
        finally:
            gc.enable()

    def _import_beside_load(self) -> None:
        # All that the kernels need: 0.2 s, and not for the master.
        from distilgpt2_api.engine_load import begin_load, leave_at_once  # noqa: PLC0415 - the reason stands above

        try:
            begin_load()
            super().load_wsgi()
        except SystemExit as end:  # the settings are wrong, and that has been said
            leave_at_once(end.code if isinstance(end.code, int) else Arbiter.WORKER_BOOT_ERROR)
            raise

    def init_signals(self) -> None:
        """Uvicorn puts its own handlers over these while it serves, and raises the signal anew when it is done."""
        super().init_signals()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._exit_early)
        _let_signals_in()

    def run(self) -> None:
        """Serve; here the addresses are known as they are, whatever settings and options say of them."""
        if self.wsgi.state.service.access.is_open:
            warn_of_strangers([listener.getsockname() for listener in self.sockets])
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Gunicorn's signature
        """SIGQUIT, which Gunicorn sends after a Ctrl-C: the original only takes note of it, until it is killed."""
        signal.raise_signal(signal.SIGTERM)

    @property
    def is_replaced(self) -> bool:
        """Whether a reload has started as many younger workers as there are to be: the master then ends the old."""
        return bool(self.siblings.youngest_age >= self.age + self.cfg.workers)

    def note_signal(self) -> None:
        """This worker is to end; if nobody is there in its place, so is the service."""
        if not self.is_replaced:
            self.siblings.note_service_ending()

    def _exit_early(self, _number: int, _frame: FrameType | None) -> None:
        """At once: before it serves nothing is to be cleaned up, a load can't be told to stop, and an exception would
        come out of a library that is just being imported as an error of its own.
        """
        self.note_signal()
        os._exit(0)

    async def _serve(self) -> None:
        settings = Settings()  # the application has been imported by now: they are sound
        limits = ConnectionLimits(
            header_timeout_s=settings.header_timeout_s,
            max_header_bytes=settings.max_header_bytes,
            write_timeout_s=settings.write_timeout_s,
            max_connections=settings.choose_max_connections(),
        )
        allow_open_files(limits.max_connections)
        self.config.app = self.wsgi
        self.config.http = limited_protocol(limits, OPENAI_ERRORS)
        server = ControlledServer(self)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class ControlledServer(Server):
    """A worker's Uvicorn server, and the `ServerControl` that it hands to the application."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.config)
        self._worker = worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._worker.note_signal()  # also where the application was not there yet to do it
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        # Uvicorn's own heartbeat goes by the wall clock: set back by an hour, it would rest for an hour, and the master
        # kill a healthy worker.
        if counter % TICKS_PER_HEARTBEAT == 0:
            self._worker.notify()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state[SERVER_CONTROL] = self
        await super().startup(sockets)

    @property
    def is_replacement(self) -> bool:
        return bool(self._worker.age > self._worker.cfg.workers)

    @property
    def is_replaced(self) -> bool:
        return self._worker.is_replaced

    @property
    def num_connections(self) -> int:
        return len(self.server_state.connections)

    @property
    def is_service_ending(self) -> bool:
        return self._worker.siblings.is_service_ending

    def note_signal(self) -> None:
        self._worker.note_signal()

    def stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    def note_alive(self) -> None:
        self._worker.notify()


def warn_of_strangers(addresses: Iterable[object]) -> None:
    """One line, where other machines may reach one of these sockets' addresses. A Unix socket's is a path."""
    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if reachable := [host for host in hosts if not ipaddress.ip_address(host).is_loopback]:
        structlog.stdlib.get_logger("distilgpt2_api").warning(
            "no API keys are set: whoever reaches the service may use it", addresses=reachable
        )


def _remove_folder(folder: Path, master_pid: int) -> None:
    """At the exit of the master; workers inherit the handler, and let it be."""
    if os.getpid() == master_pid:
        remove_metrics_folder(folder)
