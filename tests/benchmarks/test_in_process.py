"""Peers without a server: no request waits for less time than a real client's would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from benchmarks.peers.in_process import ContinuousBatch, Prompts, StaticBatch
from benchmarks.workload import Workload

CLOSED = Workload(num_clients=3, num_requests=6, num_new_tokens=5, max_prompt_tokens=64)
OPEN = Workload(num_clients=2, num_requests=7, num_new_tokens=5, rate=2000.0)


class FakeGenerator:
    """A static batch that takes no time, and records the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, prompts: Prompts, workload: Workload, mark: Callable[[], None]) -> None:
        self.batches.append(len(prompts))
        for _ in range(workload.num_new_tokens):
            mark()


class FakeEngine:
    """An engine with one token per step for each running request, up to a maximum of requests."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}
        self.most = 0
        self.prompts: list[Sequence[int]] = []

    def add(self, index: int, prompt: Sequence[int], workload: Workload) -> None:
        assert index not in self._left
        self._left[index] = workload.num_new_tokens
        self.prompts.append(prompt)
        self.most = max(self.most, len(self._left))

    def step(self) -> Mapping[int, tuple[int, bool]]:
        assert self._left, "a step of nothing"
        self._left = {index: left - 1 for index, left in self._left.items()}
        pieces = {index: (1, left == 0) for index, left in self._left.items()}
        self._left = {index: left for index, left in self._left.items() if left}
        return pieces


@pytest.mark.parametrize("workload", [CLOSED, OPEN], ids=["closed", "open"])
def test_static_batches_serve_all_requests_and_never_exceed_the_limit(workload: Workload) -> None:
    generator = FakeGenerator()
    seen = StaticBatch(generator).run(workload)

    assert sum(generator.batches) == seen.num_requests == workload.num_requests
    assert max(generator.batches) <= workload.num_clients
    assert seen.num_tokens == workload.num_requests * 5
    assert len(seen.ttfts_s) == workload.num_requests
    assert len(seen.itls_s) == workload.num_requests * 4
    assert min(seen.ttfts_s) >= 0


def test_a_closed_loop_of_static_batches_has_one_request_of_each_client() -> None:
    generator = FakeGenerator()
    StaticBatch(generator).run(CLOSED)

    assert generator.batches == [3, 3]


@pytest.mark.parametrize("workload", [CLOSED, OPEN], ids=["closed", "open"])
def test_a_continuous_batch_takes_the_next_when_one_has_ended(workload: Workload) -> None:
    engine = FakeEngine()
    seen = ContinuousBatch(engine).run(workload)

    assert engine.prompts == workload.prompts()
    assert engine.most <= workload.num_clients
    assert (seen.num_requests, seen.num_tokens) == (workload.num_requests, workload.num_requests * 5)
    assert len(seen.ttfts_s) == workload.num_requests
    assert min(seen.ttfts_s) >= 0


def test_in_an_open_loop_no_request_starts_before_it_arrives() -> None:
    """With slow arrivals and an engine that takes no time, the load lasts as long as the arrivals."""
    slow = Workload(num_clients=2, num_requests=5, num_new_tokens=1, rate=200.0)
    for batch in (ContinuousBatch(FakeEngine()), StaticBatch(FakeGenerator())):
        assert batch.run(slow).elapsed_s >= slow.arrivals_s()[-1]
