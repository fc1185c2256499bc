"""Simulated nodes follow a hand-computed schedule, policies route as named, and the planner's queueing model agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from benchmarks.routing import Outcome, Traffic, main, simulate
from benchmarks.routing_policies import PrefixAffinity, RandomPolicy, TwoChoices, least, make_policies
from benchmarks.simulated_node import SimulatedNode, SimulatedRequest

from distilgpt2_api.capacity.curve_file import EXAMPLE_CURVE, read_node_curve
from distilgpt2_api.capacity.node_curve import DecodeStep, NodeCurve
from distilgpt2_api.capacity.queueing_model import BusyNode, RequestShape, ServiceRate


def curve(**fields: Any) -> NodeCurve:
    """A step takes 10 ms, plus 1 ms for each further sequence and 0.1 ms for each prompt token."""
    steps = DecodeStep(num_sequences=1, step_s=0.010), DecodeStep(num_sequences=31, step_s=0.040)
    return NodeCurve(
        **{
            "measured_on": "paper",
            "model": "round",
            "precision": "int8",
            "num_positions": 1024,
            "kv_cache_tokens": 1000,
            "max_step_tokens": 100,
            "prefill_tokens_per_s": 10_000.0,
            "decode_steps": steps,
            **fields,
        }
    )


def ask(num_prompt_tokens: int = 50, num_completion_tokens: int = 2, prefix: int | None = None) -> SimulatedRequest:
    return SimulatedRequest(
        arrival_s=0.0,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=num_completion_tokens,
        prefix=prefix,
        num_prefix_tokens=0 if prefix is None else 32,
    )


def run_dry(node: SimulatedNode) -> list[float]:
    """The duration of each step, until nothing is left."""
    steps_s: list[float] = []
    while (step_s := node.begin_step()) is not None:
        steps_s.append(step_s)
        node.end_step(sum(steps_s))
    assert node.num_requests == 0
    return steps_s


def test_a_request_takes_its_prompt_and_a_step_for_each_token() -> None:
    node, request = SimulatedNode(curve()), ask(num_prompt_tokens=50, num_completion_tokens=3)
    node.submit(request)
    assert run_dry(node) == pytest.approx([0.015, 0.010, 0.010])
    assert (request.first_token_s, request.end_s) == pytest.approx((0.015, 0.035))


def test_a_long_prompt_comes_in_chunks_beside_decodes() -> None:
    node = SimulatedNode(curve())
    node.submit(ask(num_prompt_tokens=10, num_completion_tokens=4))
    node.submit(ask(num_prompt_tokens=250, num_completion_tokens=1))
    # 10 + 90, then 16 + 3 + 8 beside the decode while it lasts, then the rest.
    assert run_dry(node) == pytest.approx([0.020, 0.0127, 0.0127, 0.0127, 0.0179])


def test_a_request_waits_for_room_in_the_kv_cache() -> None:
    node = SimulatedNode(curve(kv_cache_tokens=100))
    first, second = ask(num_prompt_tokens=50, num_completion_tokens=1), ask(num_prompt_tokens=60)
    node.submit(first)
    node.submit(second)
    run_dry(node)
    assert first.end_s == pytest.approx(0.015)
    assert second.first_token_s == pytest.approx(0.015 + 0.016)


def test_a_request_waits_for_a_slot() -> None:
    steps = (DecodeStep(num_sequences=1, step_s=0.01),)
    node, second = SimulatedNode(curve(decode_steps=steps)), ask(num_prompt_tokens=10)
    node.submit(ask(num_prompt_tokens=10, num_completion_tokens=5))
    node.submit(second)
    run_dry(node)
    assert second.first_token_s == pytest.approx(5 * 0.010 + 0.001 + 0.011)


def test_a_beginning_is_computed_once_until_its_blocks_are_needed() -> None:
    node = SimulatedNode(curve(kv_cache_tokens=100))
    cached = []
    for request in (ask(prefix=7), ask(prefix=7), ask(num_prompt_tokens=98), ask(prefix=7)):
        node.submit(request)
        run_dry(node)
        cached.append(request.num_cached_tokens)
    assert cached == [0, 32, 0, 0]


def test_random_two_choices_and_least_compare_one_two_and_all_nodes() -> None:
    loads = [5, 0, 9, 9]
    draw: Callable[[Any], Counter[int]] = lambda policy: Counter(policy(loads, None) for _ in range(4000))  # noqa: E731 - short
    assert all(count == pytest.approx(1000, abs=150) for count in draw(RandomPolicy(Random(0))).values())
    two = draw(TwoChoices(Random(0)))
    # The best of four nodes is among two random ones with 7/16; the second best is the better of two with 5/16.
    assert two[1] == pytest.approx(1750, abs=150)
    assert two[0] == pytest.approx(1250, abs=150)
    assert least(loads, None) == 1


def test_a_beginning_keeps_its_node_when_nodes_are_added() -> None:
    """Consistent hashing: a tenth node takes about a tenth of the beginnings, and moves no others."""
    nine, ten = (PrefixAffinity(count, Random(0), bound=1.25) for count in (9, 10))
    before, after = (
        [policy([0] * count, prefix) for prefix in range(2000)] for policy, count in ((nine, 9), (ten, 10))
    )
    moved = {new for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {9}
    assert sum(new == 9 for new in after) == pytest.approx(200, abs=80)


def test_affinity_skips_nodes_over_their_bound() -> None:
    policy = PrefixAffinity(4, Random(0), bound=1.25)
    home = policy([0, 0, 0, 0], 3)
    loads = [4, 4, 4, 4]
    loads[home] = 9
    assert policy(loads, 3) != home
    assert PrefixAffinity(4, Random(0), bound=float("inf"))(loads, 3) == home


def traffic(**fields: Any) -> Traffic:
    return Traffic(
        **{
            "num_requests": 2000,
            "requests_per_s": 8 * 8.0,
            "sharing": 0.9,
            "num_prefixes": 160,
            "num_prefix_tokens": 256,
            "num_own_tokens": 64,
            "num_completion_tokens": 64,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """The results of each policy on the same traffic."""
    example = read_node_curve(EXAMPLE_CURVE)
    return {
        name: simulate(example, traffic(), policy, num_nodes=8, seed=1) for name, policy in make_policies(8, 1).items()
    }


def test_policies_with_more_knowledge_have_earlier_first_tokens(outcomes: dict[str, Outcome]) -> None:
    p99_s = {name: outcome.ttft_p99_s for name, outcome in outcomes.items()}
    assert p99_s["least"] < p99_s["two choices"] < p99_s["random"]


def test_a_common_beginning_needs_a_bound() -> None:
    """If a third of all requests begin alike, one node can't serve them, and a bound spreads them."""
    policies = make_policies(8, 1)
    bounded, unbounded = (
        simulate(read_node_curve(EXAMPLE_CURVE), traffic(num_prefixes=8), policies[name], num_nodes=8, seed=1)
        for name in ("affinity, bounded", "affinity")
    )
    assert 10 * bounded.ttft_p99_s < unbounded.ttft_p99_s
    assert bounded.tokens_per_s > unbounded.tokens_per_s


def test_affinity_finds_more_in_the_prefix_caches(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["affinity, bounded"].hit_rate > 1.1 * outcomes["two choices"].hit_rate


def test_the_same_seed_gives_the_same_figures(outcomes: dict[str, Outcome]) -> None:
    again = simulate(read_node_curve(EXAMPLE_CURVE), traffic(), make_policies(8, 1)["random"], num_nodes=8, seed=1)
    assert again == outcomes["random"]


def plan_and_simulate(
    num_prompt_tokens: int, num_completion_tokens: int, utilisation: float
) -> tuple[BusyNode, Outcome]:
    """One node, by the planner's formulas and by simulation."""
    example = read_node_curve(EXAMPLE_CURVE)
    shape = RequestShape(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_completion_tokens)
    pace = ServiceRate.of(example, shape)
    node = BusyNode.under(pace, utilisation * pace.max_requests_per_s)
    load = traffic(
        num_requests=10_000,
        requests_per_s=node.requests_per_s,
        sharing=0.0,
        num_prefix_tokens=0,
        num_own_tokens=num_prompt_tokens,
        num_completion_tokens=num_completion_tokens,
    )
    return node, simulate(example, load, make_policies(1, 0)["random"], num_nodes=1, seed=1)


@pytest.mark.parametrize("load", [(32, 128, 0.3), (32, 128, 0.7), (320, 64, 0.7)])
def test_the_planners_queue_is_what_is_simulated(load: tuple[int, int, float]) -> None:
    """Sequences within a tenth, first tokens within a third: the errors that docs/scale.md states."""
    node, outcome = plan_and_simulate(*load)
    assert node.num_running + node.num_waiting == pytest.approx(outcome.mean_requests, rel=0.1)
    assert node.ttft_s(50) == pytest.approx(outcome.ttft_p50_s, rel=0.33)
    assert node.ttft_s(99) == pytest.approx(outcome.ttft_p99_s, rel=0.33)


@pytest.mark.parametrize("load", [(900, 100, 0.7), (500, 10, 0.7)])
def test_prompts_wait_in_the_planners_queue_for_as_long_as_simulated(load: tuple[int, int, float]) -> None:
    """If nearly all of the work is prompts: first tokens within a third, sequences within three tenths."""
    node, outcome = plan_and_simulate(*load)
    assert node.num_running + node.num_waiting == pytest.approx(outcome.mean_requests, rel=0.3)
    assert node.ttft_s(50) == pytest.approx(outcome.ttft_p50_s, rel=0.33)
    assert node.ttft_s(99) == pytest.approx(outcome.ttft_p99_s, rel=0.33)


def test_the_program_prints_a_row_for_each_policy_and_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--nodes", "2", "3", "--sharing", "0.5", "--loads", "0.5", "--requests-per-node", "20"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 2 * 5
    assert rows[2].startswith("| random            |     2 |")
