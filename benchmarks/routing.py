"""Routing policies on simulated nodes: time to first token, prefix cache hits and throughput, for several fleets.

    python -m benchmarks.routing                          10 and 100 nodes, half and nine tenths of prompts shared
    python -m benchmarks.routing --measured curve.json    on your own node's curve: distilgpt2-api plan --measure --save

A discrete-event simulation. Requests arrive at random. A node's step takes the time that its curve gives for the
running sequences and the computed prompt tokens, and the prefix cache uses the free part of the KV cache. The same
seed gives the same figures on every machine. The simulation has no router time and no network, and routers know loads
instantly.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from benchmarks.report import percentile, print_table
from benchmarks.routing_policies import Policy, make_policies
from benchmarks.simulated_node import SimulatedNode, SimulatedRequest

from distilgpt2_api.capacity.curve_file import EXAMPLE_CURVE, read_node_curve
from distilgpt2_api.capacity.node_curve import NodeCurve
from distilgpt2_api.capacity.queueing_model import RequestShape, ServiceRate

WARM_UP = 0.25
"""Share of the requests, from the start, that are not measured: caches are cold and queues empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The fleet's requests. Shared prompt beginnings follow Zipf's law: the k-th one is 1 / k times as frequent."""

    num_requests: int
    requests_per_s: float
    sharing: float
    """Share of requests with one of the shared beginnings: 0 to 1."""
    num_prefixes: int
    num_prefix_tokens: int
    num_own_tokens: int
    """Tokens of a prompt after its shared beginning."""
    num_completion_tokens: int
    """Average; lengths are geometric, as if every token could be the last."""

    @property
    def num_prompt_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_own_tokens

    def requests(self, seed: int, max_completion_tokens: int) -> Iterator[SimulatedRequest]:
        rng = Random(seed)
        weights = list(accumulate(1 / rank for rank in range(1, self.num_prefixes + 1)))
        now_s = 0.0
        for _ in range(self.num_requests):
            now_s += rng.expovariate(self.requests_per_s)
            (prefix,) = rng.choices(range(self.num_prefixes), cum_weights=weights)
            is_shared = rng.random() < self.sharing
            yield SimulatedRequest(
                arrival_s=now_s,
                num_prompt_tokens=self.num_prompt_tokens,
                num_completion_tokens=min(_geometric(rng, self.num_completion_tokens), max_completion_tokens),
                prefix=prefix if is_shared else None,
                num_prefix_tokens=self.num_prefix_tokens if is_shared else 0,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Results of a simulation, without its warm-up."""

    ttft_p50_s: float
    ttft_p99_s: float
    hit_rate: float
    """Share of prompt tokens found in a prefix cache."""
    tokens_per_s: float
    """Completion tokens per second of a node, from the end of the warm-up to the last arrival."""
    mean_requests: float
    """Average number of requests in flight on a node (Little's law)."""


def simulate(curve: NodeCurve, traffic: Traffic, policy: Policy, *, num_nodes: int, seed: int) -> Outcome:
    nodes = [SimulatedNode(curve) for _ in range(num_nodes)]
    loads = [0] * num_nodes
    steps: list[tuple[float, int]] = []  # the end of a node's step, and the node
    requests = list(traffic.requests(seed, curve.num_positions - traffic.num_prompt_tokens))

    def begin_step(index: int, now_s: float) -> None:
        step_s = nodes[index].begin_step()
        if step_s is not None:
            heapq.heappush(steps, (now_s + step_s, index))

    def end_steps(until_s: float) -> None:
        while steps and steps[0][0] <= until_s:
            now_s, index = heapq.heappop(steps)
            loads[index] -= len(nodes[index].end_step(now_s))
            begin_step(index, now_s)

    for request in requests:
        end_steps(request.arrival_s)
        index = policy(loads, request.prefix)
        loads[index] += 1
        nodes[index].submit(request)
        if not nodes[index].is_busy:
            begin_step(index, request.arrival_s)
    end_steps(math.inf)
    return _outcome(requests, num_nodes)


def _outcome(requests: Sequence[SimulatedRequest], num_nodes: int) -> Outcome:
    counted = requests[int(WARM_UP * len(requests)) :]
    begin_s, end_s = counted[0].arrival_s, counted[-1].arrival_s
    num_tokens = sum(request.num_completion_tokens for request in requests if begin_s <= request.end_s < end_s)
    ttfts_s = [request.ttft_s for request in counted]
    in_flight_s = sum(request.end_s - request.arrival_s for request in counted)
    return Outcome(
        ttft_p50_s=percentile(ttfts_s, 50),
        ttft_p99_s=percentile(ttfts_s, 99),
        hit_rate=sum(request.num_cached_tokens for request in counted)
        / sum(request.num_prompt_tokens for request in counted),
        tokens_per_s=num_tokens / (end_s - begin_s) / num_nodes,
        mean_requests=in_flight_s / (end_s - begin_s) / num_nodes,
    )


def _geometric(rng: Random, mean: int) -> int:
    """A geometric random number: at least 1, `mean` on average."""
    return 1 if mean == 1 else 1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / mean))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=EXAMPLE_CURVE, help="node curve (default: the example's)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--sharing", type=float, nargs="+", default=[0.5, 0.9], help="share of such requests")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.8, 1.2], help="1: capacity without cache")
    parser.add_argument("--prefixes-per-node", type=int, default=20, help="shared beginnings")
    parser.add_argument("--prefix-tokens", type=int, default=256)
    parser.add_argument("--own-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64, help="average length of a completion")
    parser.add_argument("--requests-per-node", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    curve = read_node_curve(args.measured)
    shape = RequestShape(num_prompt_tokens=args.prefix_tokens + args.own_tokens, num_completion_tokens=args.new_tokens)
    most = ServiceRate.of(curve, shape).max_requests_per_s
    print(f"{curve.model}, {curve.precision}, measured on {curve.measured_on}: {most:.2f} requests/s per node uncached")
    for load in args.loads:
        for sharing in args.sharing:
            print(f"\nload {load:g}, {100 * sharing:.0f} % of requests share a beginning\n")
            print_table(
                ["policy", "nodes", "TTFT p50, ms", "p99", "hit rate", "tokens/s per node"],
                [
                    _row(name, num_nodes, simulate(curve, traffic, policy, num_nodes=num_nodes, seed=args.seed))
                    for num_nodes in args.nodes
                    for traffic in [_traffic(args, num_nodes, sharing, load * most)]
                    for name, policy in make_policies(num_nodes, args.seed).items()
                ],
            )


def _traffic(args: argparse.Namespace, num_nodes: int, sharing: float, requests_per_s: float) -> Traffic:
    return Traffic(
        num_requests=args.requests_per_node * num_nodes,
        requests_per_s=requests_per_s * num_nodes,
        sharing=sharing,
        num_prefixes=args.prefixes_per_node * num_nodes,
        num_prefix_tokens=args.prefix_tokens,
        num_own_tokens=args.own_tokens,
        num_completion_tokens=args.new_tokens,
    )


def _row(name: str, num_nodes: int, outcome: Outcome) -> list[object]:
    return [
        name,
        num_nodes,
        f"{1000 * outcome.ttft_p50_s:.0f}",
        f"{1000 * outcome.ttft_p99_s:.0f}",
        f"{100 * outcome.hit_rate:.0f} %",
        f"{outcome.tokens_per_s:.0f}",
    ]


if __name__ == "__main__":
    main()
