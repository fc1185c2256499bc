"""Drives a peer without a server: in the peer's process, with workloads on its standard input.

It uses only the standard library, because the programs in this folder run in the peers' environments and import nothing
else of this project. After the first token, `answer_workloads` prints the versions; then it answers each workload, a
line of JSON, with its measurements.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from benchmarks.workload import Measurements, StreamTimes, Workload, wait_for

Prompts = Sequence[Sequence[int]]
FIRST = Workload(num_clients=1, num_requests=1, num_new_tokens=4, vocab_size=256)
"""The workload for a peer's first token."""


def answer_workloads(run: Callable[[Workload], Measurements], versions: Mapping[str, str]) -> None:
    """Answer workloads until the standard input ends. The libraries' output goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run(FIRST)
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        print(run(Workload.from_json(line)).to_json(), file=answers, flush=True)


class StaticBatch:
    """Runs a workload with a call that ends when its whole batch has ended; requests that arrive meanwhile wait."""

    def __init__(self, generate: Callable[[Prompts, Workload, Callable[[], None]], None]) -> None:
        """`generate(prompts, workload, mark)` samples `num_new_tokens` per prompt, and calls `mark` after each step."""
        self._generate = generate

    def run(self, workload: Workload) -> Measurements:
        measurements = Measurements()
        prompts = workload.prompts()
        begin_s = time.perf_counter()
        if workload.rate is None:
            for first in range(0, workload.num_requests, workload.num_clients):
                self._run_batch(prompts[first : first + workload.num_clients], None, workload, measurements)
        else:
            due_s = [begin_s + arrival_s for arrival_s in workload.arrivals_s()]
            first = 0
            while first < len(prompts):
                wait_for(due_s[first])
                now_s = time.perf_counter()
                end = next((i for i in range(first, len(due_s)) if due_s[i] > now_s), len(due_s))
                end = min(end, first + workload.num_clients)
                self._run_batch(prompts[first:end], due_s[first:end], workload, measurements)
                first = end
        measurements.elapsed_s = time.perf_counter() - begin_s
        return measurements

    def _run_batch(
        self, prompts: Prompts, since_s: Sequence[float] | None, workload: Workload, measurements: Measurements
    ) -> None:
        now_s = time.perf_counter()
        times = [StreamTimes(measurements, since) for since in since_s or [now_s] * len(prompts)]

        def mark() -> None:
            marked_s = time.perf_counter()
            for one in times:
                one.mark(marked_s)

        self._generate(prompts, workload, mark)
        measurements.num_requests += len(prompts)
        measurements.num_tokens += len(prompts) * workload.num_new_tokens


class StepEngine(Protocol):
    """The interface of an engine with continuous batching."""

    def add(self, index: int, prompt: Sequence[int], workload: Workload) -> None: ...

    def step(self) -> Mapping[int, tuple[int, bool]]:
        """Run a step; return for each request the number of new tokens, and whether they are the last."""


class ContinuousBatch:
    """Runs a workload with an engine that accepts new requests between its steps."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine

    def run(self, workload: Workload) -> Measurements:
        measurements = Measurements()
        prompts = workload.prompts()
        begin_s = time.perf_counter()
        due_s = None if workload.rate is None else [begin_s + arrival_s for arrival_s in workload.arrivals_s()]
        running: dict[int, StreamTimes] = {}
        num_added = 0
        while num_added < len(prompts) or running:
            now_s = time.perf_counter()
            while num_added < len(prompts) and len(running) < workload.num_clients:
                if due_s is not None and due_s[num_added] > now_s:
                    break
                running[num_added] = StreamTimes(measurements, now_s if due_s is None else due_s[num_added])
                self._engine.add(num_added, prompts[num_added], workload)
                num_added += 1
            if due_s is not None and not running:
                wait_for(due_s[num_added])
            else:
                self._step(running, measurements)
        measurements.elapsed_s = time.perf_counter() - begin_s
        return measurements

    def _step(self, running: dict[int, StreamTimes], measurements: Measurements) -> None:
        pieces = self._engine.step()
        now_s = time.perf_counter()
        for index, (num_tokens, is_last) in pieces.items():
            running[index].mark(now_s)
            measurements.num_tokens += num_tokens
            if is_last:
                measurements.num_requests += 1
                del running[index]
