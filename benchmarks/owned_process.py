"""A process that a benchmark starts, measures with its children, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_TIMEOUT_S = 15.0
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def exit_on_sigterm() -> None:
    """Exit on SIGTERM with `finally` blocks, so that a timeout also ends the started processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class OwnedProcess:
    """Owns a process and its children; a context manager that ends them."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        is_asked: bool = False,
    ) -> None:
        """Start the process without waiting. `log` gets its output, or only its standard error if it `is_asked`."""
        self._name = " ".join(command[:3])
        self.started_s = time.perf_counter()
        output = None if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE if is_asked else subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_asked else output or subprocess.DEVNULL,
                stderr=output or subprocess.DEVNULL,
            )
        finally:
            if output is not None:
                output.close()

    def __enter__(self) -> Self:
        exit_on_sigterm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_exit(self, timeout_s: float) -> int:
        """Wait for the exit status. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def check_running(self) -> None:
        """Raises RuntimeError if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._name} ended with status {self._process.returncode}")

    def write_line(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def read_line(self) -> bytes:
        """Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self.check_running()
        return line

    def cpu_s(self) -> float:
        """Processor time so far of all its processes, in seconds."""
        return cpu_s_below(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory; shared pages count in each process."""
        return sum(_read_kib(Path(f"/proc/{pid}/status"), "VmRSS:") for pid in self._pids()) * 1024

    def pss_bytes(self) -> int:
        """Proportional memory: each process counts its share of a shared page."""
        return sum(_read_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in self._pids()) * 1024

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in [*self._pids()]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _pids(self) -> Iterator[int]:
        return _pids_below(self._process.pid)


def cpu_s_below(pid: int) -> float:
    """Processor time so far of a process and its running descendants, in seconds."""
    return sum(_cpu_ticks(each) for each in _pids_below(pid)) * CLOCK_TICK_S


def children_of(pid: int) -> list[int]:
    """Process ids of the children; empty for a process that has ended."""
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pids_below(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    pending = [pid]
    while pending:
        pid = pending.pop()
        yield pid
        pending += children_of(pid)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime: proc(5), fields 14 and 15


def _read_kib(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name)), 0)
