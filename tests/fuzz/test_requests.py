"""A hundred thousand requests generated from the OpenAPI document: no failure, no lost block, no memory leak."""

from __future__ import annotations

import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conformance.run_schemathesis import run_schemathesis
from tests.e2e.conftest import Server

logger = logging.getLogger(__name__)

NUM_REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "100000"))
MAX_EXAMPLES = 400
"""Examples of each operation per round."""
MAX_GROWTH_BYTES = 1024
"""Highest growth per request after the first round, in which caches fill and arenas grow."""


@pytest.mark.timeout(5400)
def test_the_service_survives_generated_requests(small_server: Server, tmp_path: Path) -> None:
    """Each run passes every conformance check (so no 5xx except a deadline's), and leaves nothing behind."""
    server = small_server
    seeds = itertools.count()

    def send_round() -> int:
        """Send two runs at the same time, because one alone is limited by the client."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            runs = [
                pool.submit(run_schemathesis, server, tmp_path, max_examples=MAX_EXAMPLES, seed=next(seeds))
                for _ in range(2)
            ]
            return sum(run.result() for run in runs)

    num_requests = num_first = send_round()
    first_bytes = resident_bytes(server)
    while num_requests < NUM_REQUESTS:
        num_requests += send_round()
        assert server.process.poll() is None, server.log
        assert server.metric("distilgpt2_kv_cache_usage_ratio") == 0
        growth = resident_bytes(server) - first_bytes
        logger.info("%d requests; %+.1f MiB since request %d", num_requests, growth / 2**20, num_first)
        assert growth <= MAX_GROWTH_BYTES * (num_requests - num_first)
    assert "Traceback" not in server.log


def resident_bytes(server: Server) -> int:
    """Resident memory of the server's worker, the only child of its master."""
    pid = server.process.pid
    [worker] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = Path(f"/proc/{worker}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
