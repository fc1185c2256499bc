"""How peers without a server are driven: nobody waits less than a real client of theirs would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from benchmarks.peers.turns import ContinuousBatch, Prompts, StaticBatch
from benchmarks.workload import Workload

CLOSED = Workload(num_clients=3, num_requests=6, num_new_tokens=5, max_prompt_tokens=64)
OPEN = Workload(num_clients=2, num_requests=7, num_new_tokens=5, rate=2000.0)


class FakeGenerator:
    """Draws at once, and keeps the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, prompts: Prompts, workload: Workload, mark: Callable[[], None]) -> None:
        self.batches.append(len(prompts))
        for _ in range(workload.num_new_tokens):
            mark()


class FakeEngine:
    """A token a step for each that runs, and never more of them than it is told."""

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
def test_static_batches_serve_everybody_and_never_more_at_once_than_allowed(workload: Workload) -> None:
    generator = FakeGenerator()
    seen = StaticBatch(generator).run(workload)

    assert sum(generator.batches) == seen.num_requests == workload.num_requests
    assert max(generator.batches) <= workload.num_clients
    assert seen.num_tokens == workload.num_requests * 5
    assert len(seen.ttfts_s) == workload.num_requests
    assert len(seen.itls_s) == workload.num_requests * 4
    assert min(seen.ttfts_s) >= 0


def test_a_closed_loop_of_static_batches_is_all_clients_in_turn() -> None:
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


def test_in_an_open_loop_nobody_starts_before_it_arrives() -> None:
    """Slow arrivals, an engine that takes no time: it waits for them, and so the load lasts as long as they do."""
    slow = Workload(num_clients=2, num_requests=5, num_new_tokens=1, rate=200.0)
    for batch in (ContinuousBatch(FakeEngine()), StaticBatch(FakeGenerator())):
        assert batch.run(slow).elapsed_s >= slow.arrivals_s()[-1]
