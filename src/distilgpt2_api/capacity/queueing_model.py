"""A node under load, in steady state: how many sequences run and wait on it, and what its clients see.

Requests come by chance (Poisson); `num_slots` sequences share the node, the others stand in line: a birth-death
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
from distilgpt2_api.core.step_budget import prompt_budget

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
class ServiceRate:
    """How fast a node works through requests of one shape, by how many run."""

    curve: NodeCurve
    shape: RequestShape
    num_slots: int

    @classmethod
    def of(cls, curve: NodeCurve, shape: RequestShape) -> ServiceRate:
        """Raises ContextLengthError for a request that the model's context, or the KV cache, can't hold."""
        num_tokens = shape.num_prompt_tokens + shape.num_completion_tokens
        if num_tokens > curve.num_positions:
            raise ContextLengthError(
                f"prompt and completion of {num_tokens} tokens: {curve.model} has {curve.num_positions} positions"
            )
        num_slots = curve.num_slots(num_tokens)
        if not num_slots:
            raise ContextLengthError(
                f"prompt and completion of {num_tokens} tokens: the KV cache holds {curve.kv_cache_tokens}"
            )
        return cls(curve=curve, shape=shape, num_slots=num_slots)

    @property
    def prefill_s(self) -> float:
        """What a prompt adds to the steps that compute it."""
        return self.shape.num_prefill_tokens / self.curve.prefill_tokens_per_s

    @property
    def max_requests_per_s(self) -> float:
        """Of a node whose places are all taken, at all times."""
        return self.requests_per_s(self.num_slots)

    def requests_per_s(self, num_running: int) -> float:
        """`num_running` requests take a step for each token together, the first one included, a prefill each, and the
        steps that a prompt needs beside streams before its first token's.
        """
        num_steps = max(1.0, self.shape.num_prefill_tokens / self._prompt_budget(num_running - 1, 1))
        waiting_s = (num_steps - 1) * self.curve.step_s(num_running)
        return num_running / (self.shape.num_completion_tokens * self.tpot_s(num_running) + waiting_s)

    def tpot_s(self, num_running: int) -> float:
        """Between two tokens of one sequence: a decode step, and its share of all prefills."""
        return self.curve.step_s(num_running) + num_running * self.prefill_s / self.shape.num_completion_tokens

    def first_token_s(self, num_running: int) -> float:
        """From the step that takes a request up to its first token, the request being one of `num_running`."""
        num_chunks = math.ceil(self.shape.num_prefill_tokens / self._prompt_budget(num_running - 1, 1))
        return num_chunks * self.curve.step_s(num_running) + self.prefill_s

    def prompt_s(self, num_decoding: int, num_waiting: int) -> float:
        """What one of `num_waiting` prompts occupies their line for: its part of steps, in which others decode, too."""
        num_chunks = self.shape.num_prefill_tokens / self._prompt_budget(num_decoding, num_waiting)
        return self.prefill_s + num_chunks * self.curve.step_s(num_decoding)

    def _prompt_budget(self, num_decoding: int, num_waiting: int) -> int:
        """Tokens of prompts that a step takes, as the scheduler has it."""
        return prompt_budget(max(1, self.curve.max_step_tokens - num_decoding), num_decoding, num_waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptQueue:
    """Prompts that stand behind each other, for steps compute no more of them than their budget.

    The longer the line the more of a step it gets: a birth-death process again, whose waits are halved as those of
    prompts of one length are (M/D/1 beside M/M/1).
    """

    load: float
    """Of time that it is not empty, as if it were always short."""
    shares: Sequence[float]
    """Of the time when it is not empty, that 1, 2, … stand in it."""
    waits_s: Sequence[float]
    """Behind 1, 2, … of them, at most."""

    @classmethod
    def beside(cls, num_decoding: int, rate: ServiceRate, prompts_per_s: float) -> PromptQueue:
        """As long as the node has places, at most: others stand in line for these."""
        weights, waits_s = [1.0], [0.0]
        for num_waiting in range(1, rate.num_slots + 1):
            service_s = rate.prompt_s(num_decoding, num_waiting)
            weights.append(weights[-1] * prompts_per_s * service_s)
            waits_s.append(waits_s[-1] + service_s / 2)
        total = math.fsum(weights[1:])
        return cls(
            load=min(MAX_BUSY_SHARE, weights[1]),
            shares=[weight / total for weight in weights[1:]],
            waits_s=waits_s[1:],
        )

    def share_exceeding(self, spare_s: float) -> float:
        """Of prompts that come while others stand there, that wait longer than `spare_s`."""
        late = 0.0
        shortest_s = 0.0
        for share, longest_s in zip(self.shares, self.waits_s, strict=True):
            if longest_s > spare_s:
                late += share * min(1.0, (longest_s - spare_s) / (longest_s - shortest_s))
            shortest_s = longest_s
        return late


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyNode:
    """The steady state under `requests_per_s`, which is below the rate's `max_requests_per_s`."""

    rate: ServiceRate
    requests_per_s: float
    shares: Sequence[float]
    """Of time that 0, 1, … `num_slots` sequences run and none waits: with `waiting_share` 1 together."""
    waiting_share: float
    """Of time that some wait, behind full places."""
    lines: Sequence[PromptQueue]
    """Of prompts, while 1, 2, … sequences run."""

    @classmethod
    def under(cls, rate: ServiceRate, requests_per_s: float) -> BusyNode:
        assert requests_per_s < rate.max_requests_per_s, "there is no steady state"
        # Each state's weight is the last one's times arrivals over ends; as logarithms, which do not overflow.
        logarithms = [0.0]
        for num_running in range(1, rate.num_slots + 1):
            logarithms.append(logarithms[-1] + math.log(requests_per_s / rate.requests_per_s(num_running)))
        largest = max(logarithms)
        weights = [math.exp(logarithm - largest) for logarithm in logarithms]
        ratio = requests_per_s / rate.max_requests_per_s
        waiting = weights[-1] * ratio / (1 - ratio)
        total = math.fsum(weights) + waiting
        prefilling_share = requests_per_s * rate.prefill_s
        return cls(
            rate=rate,
            requests_per_s=requests_per_s,
            shares=tuple(weight / total for weight in weights),
            waiting_share=waiting / total,
            lines=[
                PromptQueue.beside(max(1, round(num_others * (1 - prefilling_share))), rate, requests_per_s)
                for num_others in range(1, rate.num_slots)
            ],
        )

    @property
    def utilisation(self) -> float:
        """Of what the node could do with all places taken: 0 to 1."""
        return self.requests_per_s / self.rate.max_requests_per_s

    @property
    def num_running(self) -> float:
        """On average."""
        below = math.fsum(count * share for count, share in enumerate(self.shares))
        return below + self.rate.num_slots * self.waiting_share

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
        weights[-1] += self.rate.num_slots * self.waiting_share
        wanted = math.fsum(weights) * percent / 100
        reached = 0.0
        for num_running, weight in enumerate(weights):
            reached += weight
            if reached >= wanted and num_running:
                return self.rate.tpot_s(num_running)
        return self.rate.tpot_s(self.rate.num_slots)

    def _ttft_tail(self, ttft_s: float) -> float:
        """The part of requests whose first token takes longer."""
        tail = 0.0
        for num_others, share in enumerate(self.shares[:-1]):
            spare_s = ttft_s - self.rate.first_token_s(num_others + 1)
            tail += share * (1.0 if spare_s < 0 else self._share_exceeding(num_others, spare_s))
        spare_s = max(0.0, ttft_s - self.rate.first_token_s(self.rate.num_slots))
        # Of those in line so many still wait: exponential, as in Erlang C's queue.
        return tail + self.line_share * math.exp(-(self.rate.max_requests_per_s - self.requests_per_s) * spare_s)

    def _share_exceeding(self, num_others: int, spare_s: float) -> float:
        """Of requests that come while `num_others` run and wait longer than `spare_s` for the first step of theirs."""
        if not num_others:
            return 0.0
        line = self.lines[num_others - 1]
        busy_share = min(MAX_BUSY_SHARE, line.load / (1 - self.shares[0]))
        # The rest of the time who comes amid a step waits for the rest of it.
        behind_step = max(0.0, 1 - spare_s / self.rate.curve.step_s(num_others))
        return busy_share * line.share_exceeding(spare_s) + (1 - busy_share) * behind_step


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
