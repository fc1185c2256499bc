"""The smallest fleet of equal nodes that serves a load within its targets, and its cost."""

from dataclasses import dataclass

from distilgpt2_api.capacity.queueing_model import BusyNode, ServiceRate
from distilgpt2_api.core.errors import InvalidRequestError

MAX_NODES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The fleet's targets; None: no limit."""

    max_utilisation: float
    """Above 0, below 1."""
    percent: float
    """The percentile for both times, for example 99."""
    max_ttft_s: float | None = None
    max_tpot_s: float | None = None

    def are_met_by(self, node: BusyNode) -> bool:
        return (
            node.utilisation <= self.max_utilisation
            and (self.max_ttft_s is None or node.ttft_s(self.percent) <= self.max_ttft_s)
            and (self.max_tpot_s is None or node.tpot_s(self.percent) <= self.max_tpot_s)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Nodes that share a load evenly, each with Poisson arrivals. A router that knows queue lengths does better."""

    num_nodes: int
    """The nodes that the load needs."""
    num_spare_nodes: int
    """Additional nodes, for one that fails or is being replaced."""
    node: BusyNode
    """Each of the `num_nodes`, without the spare ones."""

    @property
    def completion_tokens_per_s(self) -> float:
        return self.num_nodes * self.node.requests_per_s * self.node.rate.shape.num_completion_tokens

    def cost_per_million_tokens(self, price_per_node_hour: float) -> float:
        """Cost of a million completion tokens, in the price's currency, including spare nodes."""
        cost_per_s = price_per_node_hour * (self.num_nodes + self.num_spare_nodes) / 3600
        return cost_per_s / self.completion_tokens_per_s * 1e6


def size_fleet(rate: ServiceRate, requests_per_s: float, targets: Targets, *, num_spare_nodes: int = 0) -> Fleet:
    """Raises InvalidRequestError if no fleet of up to `MAX_NODES` nodes meets the targets."""
    _check_idle_node(rate, requests_per_s, targets)
    # Doubling finds a fleet that suffices, bisection the smallest one: a node with less load is never slower.
    enough = 1
    while not _is_enough(rate, requests_per_s, targets, enough):
        if enough >= MAX_NODES:
            raise InvalidRequestError(f"the load needs more than {MAX_NODES} nodes")
        enough = min(2 * enough, MAX_NODES)
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if _is_enough(rate, requests_per_s, targets, middle) else (middle, enough)
    return Fleet(num_nodes=enough, num_spare_nodes=num_spare_nodes, node=BusyNode.under(rate, requests_per_s / enough))


def _is_enough(rate: ServiceRate, requests_per_s: float, targets: Targets, num_nodes: int) -> bool:
    per_node = requests_per_s / num_nodes
    return per_node < rate.max_requests_per_s and targets.are_met_by(BusyNode.under(rate, per_node))


def _check_idle_node(rate: ServiceRate, requests_per_s: float, targets: Targets) -> None:
    """Raises InvalidRequestError if even an almost idle node misses a target."""
    idle = BusyNode.under(rate, min(requests_per_s, rate.max_requests_per_s / 2) / MAX_NODES)
    for name, bound_s, best_s in (
        ("max_ttft_ms", targets.max_ttft_s, idle.ttft_s(targets.percent)),
        ("max_tpot_ms", targets.max_tpot_s, idle.tpot_s(targets.percent)),
    ):
        if bound_s is not None and bound_s < best_s:
            raise InvalidRequestError(
                f"{name} of {1000 * bound_s:g} can't be met: an idle node takes {1000 * best_s:.1f} ms", param=name
            )
