"""A peer as a running process: waits for its first token, puts it under load, and measures its cost."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.owned_process import OwnedProcess
from benchmarks.report import percentile
from benchmarks.start import has_first_token
from benchmarks.workload import Measurements, Workload, run_client

START_TIMEOUT_S = 300.0
"""For other servers: some compile during the start."""
RETRY_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """Results of one load on one peer. Rates are in completion tokens per second."""

    rate: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    cpu_s: float
    """Processor seconds per 1000 tokens, of all the peer's processes."""
    client_cpu_s: float | None
    """Processor seconds of the load client; None for a peer that is called in its own process."""
    client_share: float | None
    """The load client's share of all processor time."""
    rss_bytes: int
    pss_bytes: int


class RunningPeer(Protocol):
    """A peer that has generated its first token."""

    @property
    def start_s(self) -> float:
        """Seconds from the process's start to the first token."""

    @property
    def versions(self) -> Mapping[str, str]: ...

    def measure(self, workload: Workload) -> PeerRun: ...

    def stop(self) -> None: ...


class HttpPeer:
    """Owns a server with OpenAI's completions; `load_client.py`, a separate process, sends the load."""

    def __init__(
        self, server: OwnedProcess, port: int, versions: Mapping[str, str], *, options: Sequence[str] = ()
    ) -> None:
        """Wait for the first token. `options`: for the load client. Raises RuntimeError after a timeout."""
        self._server = server
        self._options = options
        self._port = port
        self.versions = versions
        try:
            self.start_s = self._wait_first_token()
        except BaseException:
            server.stop()
            raise

    def measure(self, workload: Workload) -> PeerRun:
        begin_cpu_s = self._server.cpu_s()
        seen = run_client(self._port, workload, *self._options)
        return summarise(workload, seen, self._server, self._server.cpu_s() - begin_cpu_s)

    def stop(self) -> None:
        self._server.stop()

    def _wait_first_token(self) -> float:
        while (elapsed_s := time.perf_counter() - self._server.started_s) < START_TIMEOUT_S:
            self._server.check_running()
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=START_TIMEOUT_S) as connection:
                    if has_first_token(connection):
                        return time.perf_counter() - self._server.started_s
            except ConnectionError:
                pass
            time.sleep(RETRY_S)
        raise RuntimeError(f"no token after {elapsed_s:.0f} s")


class InProcessPeer:
    """Owns a program of this folder in the peer's Python: see `in_process.py`."""

    def __init__(self, python: Path, program: str, arguments: Sequence[str], log: Path) -> None:
        """Wait for the first token. Raises RuntimeError after a timeout."""
        root = Path(__file__).parents[2]
        command = [str(python), "-m", f"benchmarks.peers.{program}", *arguments]
        environment = os.environ | {"PYTHONPATH": str(root)}
        self._process = OwnedProcess(command, environment=environment, log=log, is_asked=True)
        try:
            self.versions: dict[str, str] = json.loads(self._process.read_line())
        except BaseException:
            self._process.stop()
            raise
        self.start_s = time.perf_counter() - self._process.started_s

    def measure(self, workload: Workload) -> PeerRun:
        begin_cpu_s = self._process.cpu_s()
        self._process.write_line(workload.to_json())
        seen = Measurements.from_json(self._process.read_line())
        return summarise(workload, seen, self._process, self._process.cpu_s() - begin_cpu_s)

    def stop(self) -> None:
        self._process.stop()


def summarise(workload: Workload, seen: Measurements, process: OwnedProcess, cpu_s: float) -> PeerRun:
    """Raises RuntimeError if tokens are missing: a peer that ends early would look fast."""
    num_expected = workload.num_requests * workload.num_new_tokens
    if seen.num_tokens != num_expected:
        raise RuntimeError(f"got {seen.num_tokens} tokens instead of {num_expected}")
    per_thousand = 1000 / seen.num_tokens
    return PeerRun(
        rate=seen.num_tokens / seen.elapsed_s,
        ttft_p50_s=percentile(seen.ttfts_s, 50),
        ttft_p99_s=percentile(seen.ttfts_s, 99),
        itl_p50_s=percentile(seen.itls_s, 50),
        itl_p99_s=percentile(seen.itls_s, 99),
        cpu_s=cpu_s * per_thousand,
        client_cpu_s=seen.cpu_s * per_thousand if seen.cpu_s else None,
        client_share=seen.cpu_s / (seen.cpu_s + cpu_s) if seen.cpu_s else None,
        rss_bytes=process.rss_bytes(),
        pss_bytes=process.pss_bytes(),
    )
