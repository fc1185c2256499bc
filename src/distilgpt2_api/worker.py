"""Gunicorn's worker: `gunicorn distilgpt2_api.api:app --worker-class distilgpt2_api.worker.Worker`."""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, ClassVar

import structlog
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # the package has no types


class Worker(UvicornWorker):  # type: ignore[misc]  # an untyped base
    """Uvicorn in a Gunicorn worker, with what the original leaves out: a bound on the shutdown, a clean exit."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Streams end with the drain, well before; this ends a client that does not read.
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout

    def init_signals(self) -> None:
        """Uvicorn puts its own handlers over these while it serves, and raises the signal anew when it is done."""
        super().init_signals()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit)

    def run(self) -> None:
        """Serve; here the addresses are known as they are, whatever settings and options say of them."""
        if self.wsgi.state.service.access.is_open:
            warn_of_strangers([listener.getsockname() for listener in self.sockets])
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Gunicorn's signature
        """SIGQUIT, which Gunicorn sends after a Ctrl-C: the original only takes note of it, until it is killed."""
        signal.raise_signal(signal.SIGTERM)


def warn_of_strangers(addresses: Iterable[object]) -> None:
    """One line, where other machines may reach one of these sockets' addresses. A Unix socket's is a path."""
    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if reachable := [host for host in hosts if not ipaddress.ip_address(host).is_loopback]:
        structlog.stdlib.get_logger("distilgpt2_api").warning(
            "no API keys are set: whoever reaches the service may use it", addresses=reachable
        )


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
