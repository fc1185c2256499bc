"""A server of ours as a process: started on loopback, asked what it costs, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """Owns `distilgpt2-api serve` with Gunicorn's master and worker; a context manager that ends them."""

    def __init__(
        self,
        folder: Path,
        *,
        precision: str,
        cache_home: Path,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """Starts, and returns at once. `settings`: others, by name in upper case. `log` gets what the server prints."""
        self.port = free_port()
        self.started_s = time.perf_counter()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DISTILGPT2_")}
        environment |= {"DISTILGPT2_CACHE_HOME": str(cache_home), "DISTILGPT2_LOG_LEVEL": "warning"}
        environment |= {f"DISTILGPT2_{name}": value for name, value in (settings or {}).items()}
        arguments = ["serve", f"--model={folder}", f"--precision={precision}", "--host=127.0.0.1"]
        output = None if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "distilgpt2_api", *arguments, f"--port={self.port}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=output or subprocess.DEVNULL,
            )
        finally:
            if output is not None:
                output.close()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a timeout ends it as well
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self) -> None:
        """Returns when /readyz says so. Raises RuntimeError if that never comes."""
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

    @property
    def pid(self) -> int:
        """Gunicorn's master."""
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """Gunicorn's workers, oldest first: one, but for a moment of a reload two, and none while one is replaced."""
        return sorted(children_of(self.pid))

    def worker_pid(self) -> int:
        """The worker that came last. Raises RuntimeError while there is none."""
        if pids := self.worker_pids():
            return pids[-1]
        raise RuntimeError("the server has no worker")

    def send_signal(self, number: signal.Signals) -> None:
        """To the master, as a supervisor does it."""
        self._process.send_signal(number)

    def wait_exit(self, timeout_s: float) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def check_running(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended with status {self._process.returncode}")

    def cpu_s(self) -> float:
        """Seconds of processor time so far, of all of its processes."""
        return cpu_s_below(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory, pages shared between its processes counted in each."""
        return sum(_read_kib(Path(f"/proc/{pid}/status"), "VmRSS:") for pid in self._pids()) * 1024

    def pss_bytes(self) -> int:
        """The same with a shared page counted by its share: what the service adds to the machine."""
        return sum(_read_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in self._pids()) * 1024

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in [*self._pids()]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def _pids(self) -> Iterator[int]:
        return _pids_below(self._process.pid)


def cpu_s_below(pid: int) -> float:
    """Seconds of processor time so far, of a process and all that it started and that runs."""
    return sum(_cpu_ticks(each) for each in _pids_below(pid)) * CLOCK_TICK_S


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children_of(pid: int) -> list[int]:
    """Empty for a process that has ended."""
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pids_below(pid: int) -> Iterator[int]:
    """The process and all that it started."""
    pending = [pid]
    while pending:
        pid = pending.pop()
        yield pid
        pending += children_of(pid)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime: proc(5), fields 14 and 15


def _read_kib(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name))
