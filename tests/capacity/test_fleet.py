"""The smallest fleet that meets the targets."""

from __future__ import annotations

from typing import Any

import pytest

from distilgpt2_api.capacity.fleet import Targets, size_fleet
from distilgpt2_api.capacity.queueing_model import BusyNode, RequestShape, ServiceRate
from distilgpt2_api.core.errors import InvalidRequestError


@pytest.fixture
def rate(build_curve: Any) -> ServiceRate:
    return ServiceRate.of(build_curve(), RequestShape(num_prompt_tokens=100, num_completion_tokens=50))


def targets(max_utilisation: float = 0.7, **bounds: float) -> Targets:
    return Targets(max_utilisation=max_utilisation, percent=99, **bounds)


@pytest.mark.parametrize("requests_per_s", [0.001, 1.0, 100.0, 12_345.0])
def test_the_fleet_is_the_smallest(requests_per_s: float, rate: ServiceRate) -> None:
    fleet = size_fleet(rate, requests_per_s, targets())
    assert fleet.node.utilisation <= 0.7
    too_few = fleet.num_nodes - 1
    assert too_few == 0 or requests_per_s / too_few / rate.max_requests_per_s > 0.7


@pytest.mark.parametrize("bound", [{"max_ttft_s": 0.05}, {"max_tpot_s": 0.02}])
def test_a_latency_target_needs_more_nodes(bound: dict[str, float], rate: ServiceRate) -> None:
    without = size_fleet(rate, 1000.0, targets())
    fleet = size_fleet(rate, 1000.0, targets(**bound))
    one_less = BusyNode.under(rate, 1000.0 / (fleet.num_nodes - 1))
    assert fleet.num_nodes > without.num_nodes
    assert targets(**bound).are_met_by(fleet.node)
    assert not targets(**bound).are_met_by(one_less)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({"max_ttft_s": 0.019}, r"max_ttft_ms of 19 can't be met: an idle node takes 20\.0 ms"),
        ({"max_tpot_s": 0.001}, r"max_tpot_ms of 1 can't be met: an idle node takes 10\.2 ms"),
    ],
)
def test_a_target_that_no_fleet_meets_is_refused(bound: dict[str, float], message: str, rate: ServiceRate) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        size_fleet(rate, 1.0, targets(**bound))


def test_a_load_beyond_a_million_nodes_is_refused(rate: ServiceRate) -> None:
    with pytest.raises(InvalidRequestError, match="more than 1000000 nodes"):
        size_fleet(rate, 1e9, targets())


def test_the_cost_per_token_includes_spare_nodes(rate: ServiceRate) -> None:
    """Two nodes and a spare one for 3.60 an hour each, at half of their capacity."""
    requests_per_s = rate.max_requests_per_s
    fleet = size_fleet(rate, requests_per_s, targets(max_utilisation=0.5), num_spare_nodes=1)
    assert fleet.num_nodes == 2
    assert fleet.completion_tokens_per_s == pytest.approx(50 * requests_per_s)
    assert fleet.cost_per_million_tokens(3.60) == pytest.approx(3 * 0.001 / (50 * requests_per_s) * 1e6)
