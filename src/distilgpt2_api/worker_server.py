"""The Uvicorn server of a Gunicorn worker. Only a worker imports it, so the master stays small."""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, Protocol

import structlog
import uvloop
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # Gunicorn has no types
from uvicorn import Config, Server

from distilgpt2_api.server.http.connections.connections import limited_protocol
from distilgpt2_api.server.http.connections.tls import tls_protocol
from distilgpt2_api.server.http.connections.unix_peer import UNIX_PEER
from distilgpt2_api.server.http.limits import ConnectionLimits
from distilgpt2_api.server.lifecycle.server_control import SERVER_CONTROL
from distilgpt2_api.server.lifecycle.worker_group import WorkerGroup
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.host_resources import allow_open_files

FINAL_FLUSH_S = 0.5
"""After the drain, clients have this long to read the rest of their responses."""
TICKS_PER_HEARTBEAT = 10
"""Uvicorn ticks every 0.1 s."""
DEFAULT_BACKLOG = 2048
"""Gunicorn's and Uvicorn's own default, for Gunicorn's option 0."""


class ServingWorker(Protocol):
    """A Gunicorn worker as its server uses it."""

    age: int
    """Its number: the master counts the workers that it starts."""
    ppid: int
    cfg: Any
    """Gunicorn's configuration."""
    log: Any
    wsgi: Any
    """The application. Gunicorn's name for it; ours is an ASGI application."""
    sockets: list[Any]
    max_requests: int
    tls: ssl.SSLContext | None
    group: WorkerGroup

    @property
    def is_superseded(self) -> bool: ...

    def announce_shutdown(self) -> None: ...

    def notify(self) -> None: ...


def serve(worker: ServingWorker) -> None:
    """Serve until a signal ends the worker. The actual addresses are known only here."""
    if worker.wsgi.state.service.access.is_open:
        warn_if_open([listener.getsockname() for listener in worker.sockets])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(worker))


async def _serve(worker: ServingWorker) -> None:
    server = ControlledServer(server_config(worker), worker)
    # Gunicorn sends SIGQUIT after a Ctrl-C, which Uvicorn doesn't handle.
    asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, signal.raise_signal, signal.SIGTERM)
    # Python's own sockets: uvloop knows that it shares only those, and closes no descriptor twice.
    await server.serve(sockets=[listener.sock for listener in worker.sockets])
    if not server.started:
        sys.exit(Arbiter.WORKER_BOOT_ERROR)


def server_config(worker: ServingWorker) -> Config:
    """Uvicorn's configuration, from the settings and Gunicorn's options."""
    settings = Settings()  # valid: the application has been imported
    limits = ConnectionLimits(
        header_timeout_s=settings.header_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        write_timeout_s=settings.write_timeout_s,
        max_connections=settings.choose_max_connections(),
    )
    allow_open_files(limits.max_connections)
    http = limited_protocol(limits, OPENAI_ERRORS)
    if worker.tls is not None:
        http = tls_protocol(limits, OPENAI_ERRORS, worker.tls)
    return Config(
        worker.wsgi,
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,  # the application has configured the log
        access_log=False,
        server_header=False,
        timeout_keep_alive=worker.cfg.keepalive,
        timeout_graceful_shutdown=FINAL_FLUSH_S,  # type: ignore[arg-type]  # asyncio.wait_for takes a fraction, too
        limit_max_requests=worker.max_requests,
        forwarded_allow_ips=trusted_proxies(worker.cfg.forwarded_allow_ips),
        backlog=worker.cfg.backlog or DEFAULT_BACKLOG,
        **gunicorns_tls(worker.cfg),
    )


def gunicorns_tls(cfg: Any) -> dict[str, Any]:
    """Uvicorn's options for Gunicorn's own ones, such as `--certfile`. A handshake has no limit then."""
    if not cfg.is_ssl:
        return {}
    options = cfg.ssl_options
    return {
        "ssl_keyfile": options.get("keyfile"),
        "ssl_certfile": options.get("certfile"),
        "ssl_keyfile_password": options.get("password"),
        "ssl_version": options.get("ssl_version"),
        "ssl_cert_reqs": options.get("cert_reqs"),
        "ssl_ca_certs": options.get("ca_certs"),
        "ssl_ciphers": options.get("ciphers"),
    }


class ControlledServer(Server):
    """A worker's Uvicorn server. It is also the `ServerControl` that the application receives."""

    def __init__(self, config: Config, worker: ServingWorker) -> None:
        super().__init__(config)
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
