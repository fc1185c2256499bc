"""The steady state, compared with closed formulas. `tests/benchmarks` compares it with a simulation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from distilgpt2_api.capacity.node_curve import DecodeStep
from distilgpt2_api.capacity.queueing_model import BusyNode, RequestShape, ServiceRate
from distilgpt2_api.core.errors import ContextLengthError


def shape(num_prompt_tokens: int = 100, num_completion_tokens: int = 50, **fields: Any) -> RequestShape:
    return RequestShape(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_completion_tokens, **fields)


def test_a_single_request_takes_its_steps_and_its_prefill(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(), shape())
    assert 1 / rate.requests_per_s(1) == pytest.approx(50 * 0.010 + 100 / 10_000)


def test_requests_share_steps_but_not_prefills(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(), shape())
    wait_s = (100 / (16 + 10 * 3 + 8) - 1) * 0.020  # a prompt's additional steps beside ten streams
    assert 11 / rate.requests_per_s(11) == pytest.approx(50 * 0.020 + 11 * 100 / 10_000 + wait_s)
    assert rate.max_requests_per_s == pytest.approx(31 / (50 * 0.040 + 31 * 0.010))


def test_cached_prompt_tokens_are_not_computed_except_the_last(build_curve: Any) -> None:
    assert ServiceRate.of(build_curve(), shape(cached_share=0.75)).prefill_s == pytest.approx(25 / 10_000)
    assert ServiceRate.of(build_curve(), shape(cached_share=1.0)).prefill_s == pytest.approx(1 / 10_000)


def test_a_prompt_above_the_step_budget_takes_several_steps(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(), shape(num_prompt_tokens=600))
    assert rate.first_token_s(1) == pytest.approx(3 * 0.010 + 0.060)
    assert rate.first_token_s(11) == pytest.approx(12 * 0.020 + 0.060)  # 16 + 10 * 3 + 8 tokens per step


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"num_positions": 149}, "prompt and completion of 150 tokens: round has 149 positions"),
        ({"kv_cache_tokens": 128}, "prompt and completion of 150 tokens: the KV cache holds 128"),
    ],
)
def test_a_request_that_does_not_fit_a_node_is_refused(curve: dict[str, int], message: str, build_curve: Any) -> None:
    with pytest.raises(ContextLengthError, match=message):
        ServiceRate.of(build_curve(**curve), shape())


def test_with_one_slot_it_is_the_m_m_1_queue(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(decode_steps=(DecodeStep(num_sequences=1, step_s=0.01),)), shape())
    node = BusyNode.under(rate, 0.8 * rate.max_requests_per_s)
    assert node.utilisation == pytest.approx(0.8)
    assert node.num_running == pytest.approx(0.8)
    assert node.num_waiting == pytest.approx(0.8 * 0.8 / 0.2)
    assert node.queued_share == pytest.approx(0.8)
    assert node.latency_s == pytest.approx(0.51 / 0.2)
    assert node.queue_time_s == pytest.approx(0.51 * 0.8 / 0.2)


def test_with_constant_step_times_it_is_erlang_c(build_curve: Any) -> None:
    steps = (DecodeStep(num_sequences=1, step_s=0.01), DecodeStep(num_sequences=10, step_s=0.01))
    rate = ServiceRate.of(build_curve(decode_steps=steps, prefill_tokens_per_s=1e12), shape(num_prompt_tokens=20))
    offered = 8.0  # Erlang, on 10 servers
    node = BusyNode.under(rate, offered / 0.5)
    busy = offered**10 / math.factorial(10) / (1 - offered / 10)
    erlang_c = busy / (sum(offered**count / math.factorial(count) for count in range(10)) + busy)
    assert node.queued_share == pytest.approx(erlang_c, rel=1e-6)
    assert node.num_running == pytest.approx(offered, rel=1e-6)
    assert node.queue_time_s == pytest.approx(erlang_c * 0.5 / (10 - offered), rel=1e-6)


def test_an_almost_idle_node_has_the_lowest_latencies(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(), shape())
    node = BusyNode.under(rate, 1e-6)
    assert node.ttft_s(99) == pytest.approx(0.010 + 0.010, abs=1e-5)
    assert node.tpot_s(99) == pytest.approx(rate.tpot_s(1))


def test_more_load_is_never_faster(build_curve: Any) -> None:
    """The search for the smallest fleet relies on it."""
    rate = ServiceRate.of(build_curve(), shape(num_prompt_tokens=400))
    nodes = [BusyNode.under(rate, part / 100 * rate.max_requests_per_s) for part in range(1, 100)]
    for figures in (
        [node.ttft_s(99) for node in nodes],
        [node.tpot_s(99) for node in nodes],
        [node.latency_s for node in nodes],
    ):
        assert figures == sorted(figures)


def test_percentiles_increase(build_curve: Any) -> None:
    rate = ServiceRate.of(build_curve(), shape())
    node = BusyNode.under(rate, 0.95 * rate.max_requests_per_s)
    ttfts_s = [node.ttft_s(percent) for percent in (50, 90, 99, 99.9)]
    assert ttfts_s == sorted(ttfts_s)
    assert ttfts_s[-1] > 2 * ttfts_s[0]
