"""Our server as a process: starts it on loopback, measures its cost, ends it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.owned_process import OwnedProcess, children_of

START_TIMEOUT_S = 60.0


class ServerProcess(OwnedProcess):
    """Owns `distilgpt2-api serve`: Gunicorn's master (`pid`) and its worker; a context manager that ends them."""

    def __init__(
        self,
        folder: Path,
        *,
        precision: str,
        cache_home: Path,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
        python: Path | None = None,
        module: str = "distilgpt2_api",
    ) -> None:
        """Start the server without waiting. `settings`: by name in upper case. `log` gets the server's output.

        `python` is the server's environment; by default it is this process's. `module` has the command line.
        """
        self.port = free_port()
        # An installed service has compiled modules; without them each start would compile those of the checkout.
        unwanted = ("DISTILGPT2_", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
        environment |= {"DISTILGPT2_CACHE_HOME": str(cache_home), "DISTILGPT2_LOG_LEVEL": "warning"}
        environment |= {f"DISTILGPT2_{name}": value for name, value in (settings or {}).items()}
        arguments = ["serve", f"--model={folder}", f"--precision={precision}", "--host=127.0.0.1"]
        super().__init__(
            [str(python or sys.executable), "-m", module, *arguments, f"--port={self.port}"],
            environment=environment,
            log=log,
        )

    def wait_ready(self) -> None:
        """Wait until /readyz answers 200. Raises RuntimeError after a minute."""
        request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        while time.perf_counter() - self.started_s < START_TIMEOUT_S:
            self.check_running()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
                    connection.sendall(request)
                    if connection.recv(4096).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("the server is not ready after a minute")

    def worker_pids(self) -> list[int]:
        """Gunicorn's workers, oldest first: usually one, two during a reload, none while a worker is replaced."""
        return sorted(children_of(self.pid))

    def worker_pid(self) -> int:
        """The newest worker. Raises RuntimeError if there is none."""
        if pids := self.worker_pids():
            return pids[-1]
        raise RuntimeError("the server has no worker")


def add_server_python(parser: argparse.ArgumentParser) -> None:
    """Add the option for `ServerProcess`'s `python`."""
    parser.add_argument(
        "--server-python",
        type=Path,
        metavar="PYTHON",
        help="Python of the server's environment (default: this one); more installed packages mean more imports",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
