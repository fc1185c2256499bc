"""The same load for every peer: its prompts, its arrivals, and its measurements."""

from __future__ import annotations

import math
import statistics

import pytest
from benchmarks.workload import Measurements, StreamTimes, Workload, deal

MIXED = Workload(num_clients=8, num_requests=4000, min_prompt_tokens=16, max_prompt_tokens=512, vocab_size=100)


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    """Gaps are exponential: mean and standard deviation are one over the rate."""
    arrivals_s = Workload(num_clients=1, num_requests=20_000, rate=8.0).arrivals_s()
    gaps_s = [end - begin for begin, end in zip([0.0, *arrivals_s], arrivals_s, strict=False)]

    assert min(gaps_s) >= 0
    assert statistics.fmean(gaps_s) == pytest.approx(1 / 8, rel=0.03)
    assert statistics.stdev(gaps_s) == pytest.approx(1 / 8, rel=0.03)


def test_prompts_have_all_lengths_and_more_short_ones_than_long() -> None:
    """The logarithm of the length is uniform, so the median is the geometric mean of the ends."""
    lengths = [len(prompt) for prompt in MIXED.prompts()]

    assert min(lengths) >= 16
    assert max(lengths) <= 512
    assert statistics.median(lengths) == pytest.approx(math.sqrt(16 * 512), rel=0.1)


def test_prompts_of_one_length_have_it() -> None:
    lengths = {len(prompt) for prompt in Workload(num_clients=1, num_requests=9).prompts()}
    assert lengths == {32}


def test_the_same_workload_gives_all_peers_the_same_requests() -> None:
    """A peer gets the workload as JSON, in a separate process."""
    again = Workload.from_json(MIXED.to_json())

    assert again == MIXED
    assert again.prompts() == MIXED.prompts()
    assert all(0 <= token_id < 100 for prompt in again.prompts() for token_id in prompt)


def test_measurements_survive_their_json_line() -> None:
    seen = Measurements(num_tokens=3, num_requests=1, ttfts_s=[0.5], itls_s=[0.1, 0.2], elapsed_s=0.8, cpu_s=0.01)
    assert Measurements.from_json(seen.to_json()) == seen


def test_a_stream_has_one_ttft_and_then_gaps() -> None:
    seen = Measurements()
    times = StreamTimes(seen, 10.0)
    for now_s in (10.5, 10.75, 11.0):
        times.mark(now_s)

    assert seen.ttfts_s == [0.5]
    assert seen.itls_s == [0.25, 0.25]


def test_requests_are_dealt_out_once_each_and_evenly() -> None:
    parts = [list(part) for part in deal(10, 4)]

    assert sorted(index for part in parts for index in part) == list(range(10))
    assert [len(part) for part in parts] == [3, 3, 2, 2]
