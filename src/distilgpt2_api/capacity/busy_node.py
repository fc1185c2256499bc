"""A node under load, in steady state: how many sequences run and wait on it, and what its clients see.

Requests come by chance (Poisson); `num_places` sequences share the node, the others stand in line: a birth-death
process whose rate of ends depends on how many run, which is what a node curve tells. If n sequences ended n times as
fast as one it would be Erlang C's queue; they don't, for a step of n takes longer than a step of one.

Sources: Cohen, "The multiple phase service network with generalized processor sharing", Acta Informatica 12 (1979): for
sequences that all run the shares do not depend on how lengths are distributed; Kleinrock, "Queueing Systems 1" (1975),
chapter 3, for the line, which takes lengths to vary exponentially. Where all are of one length lines are shorter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distilgpt2_api.capacity.node_curve import NodeCurve
from distilgpt2_api.core.errors import ContextLengthError

PRECISION_S = 1e-6
MAX_BUSY_SHARE = 0.99
"""Of the line of prompts: an estimate, which may come out at 1 and over where the node itself is not full yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """The requests of a load, on average."""

    num_prompt_tokens: int
    num_completion_tokens: int
    cached_share: float = 0.0
    """Of the prompt's tokens, that the prefix cache has: 0 to 1."""

    @property
    def num_prefill_tokens(self) -> float:
        """Never less than the prompt's last token, whose logits are wanted."""
        return max(1.0, self.num_prompt_tokens * (1 - self.cached_share))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePace:
    """How fast a node works through requests of one shape, by how many run."""

    curve: NodeCurve
    shape: RequestShape
    num_places: int

    @classmethod
    def of(cls, curve: NodeCurve, shape: RequestShape) -> NodePace:
        """Raises ContextLengthError for a request that the model's context, or the KV cache, can't hold."""
        num_tokens = shape.num_prompt_tokens + shape.num_completion_tokens
        if num_tokens > curve.num_positions:
            raise ContextLengthError(
                f"prompt and completion of {num_tokens} tokens: {curve.model} has {curve.num_positions} positions"
            )
        num_places = curve.num_places(num_tokens)
        if not num_places:
            raise ContextLengthError(
                f"prompt and completion of {num_tokens} tokens: the KV cache holds {curve.kv_cache_tokens}"
            )
        return cls(curve=curve, shape=shape, num_places=num_places)

    @property
    def prefill_s(self) -> float:
        """What a prompt adds to the steps that compute it."""
        return self.shape.num_prefill_tokens / self.curve.prefill_tokens_per_s

    @property
    def max_requests_per_s(self) -> float:
        """Of a node whose places are all taken, at all times."""
        return self.requests_per_s(self.num_places)

    def requests_per_s(self, num_running: int) -> float:
        """`num_running` requests take a step for each token together, the first one included, and a prefill each."""
        return num_running / (self.shape.num_completion_tokens * self.tpot_s(num_running))

    def tpot_s(self, num_running: int) -> float:
        """Between two tokens of one sequence: a decode step, and its share of all prefills."""
        return self.curve.step_s(num_running) + num_running * self.prefill_s / self.shape.num_completion_tokens

    def prompt_s(self, num_running: int, prefilling_share: float) -> float:
        """What a prompt occupies the line of prompts for: its part of steps, in which the others decode, too."""
        num_decoding = max(1, round(num_running * (1 - prefilling_share)))
        steps_each = self.shape.num_prefill_tokens / max(1, self.curve.max_step_tokens - num_decoding)
        return self.prefill_s + steps_each * self.curve.step_s(num_decoding)

    def first_token_s(self, num_running: int) -> float:
        """From the step that takes a request up to its first token, the request being one of `num_running`."""
        budget = max(1, self.curve.max_step_tokens - num_running + 1)
        num_chunks = math.ceil(self.shape.num_prefill_tokens / budget)
        return num_chunks * self.curve.step_s(num_running) + self.prefill_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyNode:
    """The steady state under `requests_per_s`, which is below the pace's `max_requests_per_s`."""

    pace: NodePace
    requests_per_s: float
    shares: Sequence[float]
    """Of time that 0, 1, … `num_places` sequences run and none waits: with `waiting_share` 1 together."""
    waiting_share: float
    """Of time that some wait, behind full places."""

    @classmethod
    def under(cls, pace: NodePace, requests_per_s: float) -> BusyNode:
        assert requests_per_s < pace.max_requests_per_s, "there is no steady state"
        # Each state's weight is the last one's times arrivals over ends; as logarithms, which do not overflow.
        logarithms = [0.0]
        for num_running in range(1, pace.num_places + 1):
            logarithms.append(logarithms[-1] + math.log(requests_per_s / pace.requests_per_s(num_running)))
        largest = max(logarithms)
        weights = [math.exp(logarithm - largest) for logarithm in logarithms]
        ratio = requests_per_s / pace.max_requests_per_s
        waiting = weights[-1] * ratio / (1 - ratio)
        total = math.fsum(weights) + waiting
        return cls(
            pace=pace,
            requests_per_s=requests_per_s,
            shares=tuple(weight / total for weight in weights),
            waiting_share=waiting / total,
        )

    @property
    def utilisation(self) -> float:
        """Of what the node could do with all places taken: 0 to 1."""
        return self.requests_per_s / self.pace.max_requests_per_s

    @property
    def num_running(self) -> float:
        """On average."""
        below = math.fsum(count * share for count, share in enumerate(self.shares))
        return below + self.pace.num_places * self.waiting_share

    @property
    def num_waiting(self) -> float:
        """On average: the line is geometric."""
        return self.waiting_share / (1 - self.utilisation)

    @property
    def line_share(self) -> float:
        """Of requests that find all places taken (Poisson arrivals see time averages)."""
        return self.shares[-1] + self.waiting_share

    @property
    def queue_time_s(self) -> float:
        """On average (Little's law)."""
        return self.num_waiting / self.requests_per_s

    @property
    def latency_s(self) -> float:
        """End to end, on average: in line, and then among those that run (Little's law)."""
        return (self.num_waiting + self.num_running) / self.requests_per_s

    def ttft_s(self, percent: float) -> float:
        """That so many in a hundred requests do not exceed."""
        return _percentile(self._ttft_tail, percent)

    def tpot_s(self, percent: float) -> float:
        """The time per output token beside so many others as there are, for so many in a hundred tokens, not more."""
        weights = [count * share for count, share in enumerate(self.shares)]
        weights[-1] += self.pace.num_places * self.waiting_share
        wanted = math.fsum(weights) * percent / 100
        reached = 0.0
        for num_running, weight in enumerate(weights):
            reached += weight
            if reached >= wanted and num_running:
                return self.pace.tpot_s(num_running)
        return self.pace.tpot_s(self.pace.num_places)

    def _ttft_tail(self, ttft_s: float) -> float:
        """The part of requests whose first token takes longer."""
        tail = 0.0
        for num_others, share in enumerate(self.shares[:-1]):
            spare_s = ttft_s - self.pace.first_token_s(num_others + 1)
            tail += share * (1.0 if spare_s < 0 else self._late_share(num_others, spare_s))
        spare_s = max(0.0, ttft_s - self.pace.first_token_s(self.pace.num_places))
        # Of those in line so many still wait: exponential, as in Erlang C's queue.
        return tail + self.line_share * math.exp(-(self.pace.max_requests_per_s - self.requests_per_s) * spare_s)

    def _late_share(self, num_others: int, spare_s: float) -> float:
        """Of requests that come while `num_others` run and wait longer than `spare_s` for the first step of theirs."""
        if not num_others:
            return 0.0
        # Prompts stand in a line of their own, for steps compute no more than their budget: M/D/1, whose waits are
        # nearly exponential. The rest of the time who comes amid a step waits for the rest of it.
        service_s = self.pace.prompt_s(num_others, self._prefilling_share)
        load = min(MAX_BUSY_SHARE, self.requests_per_s * service_s)
        busy_share = min(MAX_BUSY_SHARE, load / (1 - self.shares[0]))
        behind_prompts = math.exp(-2 * (1 - load) * spare_s / service_s)
        behind_step = max(0.0, 1 - spare_s / self.pace.curve.step_s(num_others))
        return busy_share * behind_prompts + (1 - busy_share) * behind_step

    @property
    def _prefilling_share(self) -> float:
        return self.requests_per_s * self.pace.prefill_s


def _percentile(tail: Callable[[float], float], percent: float) -> float:
    """Where a falling `tail` reaches what `percent` leaves, to a microsecond."""
    wanted = 1 - percent / 100
    above_s = 1.0
    while tail(above_s) > wanted:
        above_s *= 2
    below_s = 0.0
    while above_s - below_s > PRECISION_S:
        middle_s = (below_s + above_s) / 2
        below_s, above_s = (middle_s, above_s) if tail(middle_s) > wanted else (below_s, middle_s)
    return above_s
