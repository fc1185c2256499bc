"""A hundred thousand requests made from the OpenAPI document: no failure, no block lost, no memory gained."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from tests.contract.conformance import run_schemathesis
from tests.e2e.conftest import Server

logger = logging.getLogger(__name__)

NUM_REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "100000"))
MAX_EXAMPLES = 400
"""Of each operation in a round."""
MAX_GROWTH_BYTES = 1024
"""For each request after the first round: caches fill and arenas grow once."""


@pytest.mark.timeout(3600)
def test_the_service_outlives_whatever_is_sent(small_server: Server, tmp_path: Path) -> None:
    """Each round passes every check of the conformance run (so no 5xx but a deadline's), and leaves nothing behind."""
    server = small_server
    num_requests = run_schemathesis(server, tmp_path, max_examples=MAX_EXAMPLES, seed=0)
    first_bytes, num_first, seed = resident_bytes(server), num_requests, 0
    while num_requests < NUM_REQUESTS:
        seed += 1
        num_requests += run_schemathesis(server, tmp_path, max_examples=MAX_EXAMPLES, seed=seed)
        assert server.process.poll() is None, server.log
        assert server.metric("distilgpt2_kv_cache_usage_ratio") == 0
        growth = resident_bytes(server) - first_bytes
        logger.info("%d requests; %+.1f MiB since request %d", num_requests, growth / 2**20, num_first)
        assert growth <= MAX_GROWTH_BYTES * (num_requests - num_first)
    assert "Traceback" not in server.log


def resident_bytes(server: Server) -> int:
    """Of the server's worker, which is the only child of its master."""
    pid = server.process.pid
    [worker] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = Path(f"/proc/{worker}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
