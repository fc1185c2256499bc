"""The comparison: its loads, and failing peers."""

from __future__ import annotations

import argparse
import json
import subprocess

import pytest
from benchmarks.compare import build_workloads, keep_whole, measure
from benchmarks.peers.running import PeerRun
from benchmarks.workload import Workload

RUN = PeerRun(
    rate=100.0,
    ttft_p50_s=0.1,
    ttft_p99_s=0.2,
    itl_p50_s=0.01,
    itl_p99_s=0.02,
    cpu_s=1.0,
    client_cpu_s=None,
    client_share=None,
    rss_bytes=1,
    pss_bytes=1,
)


class FakePeer:
    """A peer that fails with the given error."""

    start_s = 1.0

    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self.versions: dict[str, str] = {}

    def measure(self, workload: Workload) -> PeerRun:
        if self._error is not None:
            raise self._error
        return RUN

    def stop(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "error", [RuntimeError("2 tokens came"), subprocess.CalledProcessError(1, "load_client"), BrokenPipeError()]
)
def test_a_failing_peer_is_reported_and_the_others_continue(error: Exception) -> None:
    workload = Workload(num_clients=1, num_requests=1)
    results = {
        json.dumps(["1 clients", name]): [measure(FakePeer(None), name, "1 clients", workload), last]
        for name, last in (("good", RUN), ("bad", measure(FakePeer(error), "bad", "1 clients", workload)))
    }
    missing: dict[str, str] = {}

    assert [*keep_whole(results, missing)] == [("1 clients", "good")]
    assert missing.keys() == {"bad"}
    assert "1 clients" in missing["bad"]


def test_the_options_give_all_loads_and_open_ones_have_the_same_arrivals_for_all_peers() -> None:
    args = argparse.Namespace(clients=[1, 8], mixed_clients=[8], rates=[4.0, 12.0], requests=2, open_seconds=10.0)
    loads = build_workloads(args)

    assert [*loads] == ["1 clients", "8 clients", "8 clients, mixed prompts", "4 requests/s", "12 requests/s"]
    assert loads["8 clients"].num_requests == 16
    assert loads["1 clients"].num_requests == 4
    assert loads["12 requests/s"].num_requests == 120
    assert loads["12 requests/s"].arrivals_s() == loads["12 requests/s"].arrivals_s()
    assert loads["8 clients, mixed prompts"].max_prompt_tokens > loads["8 clients, mixed prompts"].min_prompt_tokens
