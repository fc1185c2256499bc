"""A node under load in steady state: how many sequences run and wait, and the latencies that clients see.

Arrivals are Poisson. Up to `num_slots` sequences share the node, the others queue. This is a birth-death process whose
service rate depends on the number of running sequences, as the node curve says. If n sequences finished n times as fast
as one, it would be Erlang's C model; they don't, because a step of n takes longer than a step of one.

Sources: Cohen, "The multiple phase service network with generalized processor sharing", Acta Informatica 12 (1979):
without a queue, the result does not depend on the distribution of lengths. Kleinrock, "Queueing Systems 1" (1975),
chapter 3, for the queue, which assumes exponential lengths; with equal lengths, queues are shorter.
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
"""Limit on the estimated load of the prompt queue, which may exceed 1 although the node itself is not full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """The average request of a load."""

    num_prompt_tokens: int
    num_completion_tokens: int
    cached_share: float = 0.0
    """Share of the prompt's tokens that are in the prefix cache: 0 to 1."""

    @property
    def num_prefill_tokens(self) -> float:
        """At least 1: the logits of the prompt's last token are always computed."""
        return max(1.0, self.num_prompt_tokens * (1 - self.cached_share))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRate:
    """A node's speed for requests of one shape, by the number of running sequences."""

    curve: NodeCurve
    shape: RequestShape
    num_slots: int

    @classmethod
    def of(cls, curve: NodeCurve, shape: RequestShape) -> ServiceRate:
        """Raises ContextLengthError if a request doesn't fit the model's context or the KV cache."""
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
        """The time that a prompt adds to the steps that compute it."""
        return self.shape.num_prefill_tokens / self.curve.prefill_tokens_per_s

    @property
    def max_requests_per_s(self) -> float:
        """The rate of a node whose slots are always full."""
        return self.requests_per_s(self.num_slots)

    def requests_per_s(self, num_running: int) -> float:
        """Requests per second with `num_running` sequences.

        Together they need a step for each token, one prefill each, and the additional steps of prompts that exceed the
        step budget.
        """
        num_steps = max(1.0, self.shape.num_prefill_tokens / self._prompt_budget(num_running - 1, 1))
        waiting_s = (num_steps - 1) * self.curve.step_s(num_running)
        return num_running / (self.shape.num_completion_tokens * self.tpot_s(num_running) + waiting_s)

    def tpot_s(self, num_running: int) -> float:
        """Time between two tokens of a sequence: a decode step and its share of all prefills."""
        return self.curve.step_s(num_running) + num_running * self.prefill_s / self.shape.num_completion_tokens

    def first_token_s(self, num_running: int) -> float:
        """Time from a request's first step to its first token; `num_running` includes the request."""
        num_chunks = math.ceil(self.shape.num_prefill_tokens / self._prompt_budget(num_running - 1, 1))
        return num_chunks * self.curve.step_s(num_running) + self.prefill_s

    def prompt_s(self, num_decoding: int, num_waiting: int) -> float:
        """Service time of one of `num_waiting` prompts in their queue; its steps also decode other sequences."""
        num_chunks = self.shape.num_prefill_tokens / self._prompt_budget(num_decoding, num_waiting)
        return self.prefill_s + num_chunks * self.curve.step_s(num_decoding)

    def _prompt_budget(self, num_decoding: int, num_waiting: int) -> int:
        """Prompt tokens per step, by the scheduler's own rule."""
        return prompt_budget(max(1, self.curve.max_step_tokens - num_decoding), num_decoding, num_waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptQueue:
    """The queue of prompts: each step computes only as many prompt tokens as its budget allows.

    The budget grows with the queue, so this is a birth-death process, too. Waits are half of an exponential server's,
    because prompts have equal lengths (M/D/1 instead of M/M/1).
    """

    load: float
    """Share of time in which it is not empty, estimated for a short queue."""
    shares: Sequence[float]
    """Given that it is not empty, the probabilities of 1, 2, … prompts in it."""
    waits_s: Sequence[float]
    """The longest wait behind 1, 2, … prompts."""

    @classmethod
    def beside(cls, num_decoding: int, rate: ServiceRate, prompts_per_s: float) -> PromptQueue:
        """At most `num_slots` prompts: the others wait for a slot."""
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
        """Share of the prompts that find the queue not empty and wait longer than `spare_s`."""
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
    """Shares of time in which 0, 1, … `num_slots` sequences run and none waits. The sum with `waiting_share` is 1."""
    waiting_share: float
    """Share of time in which all slots are full and sequences wait."""
    prompt_queues: Sequence[PromptQueue]
    """While 1, 2, … sequences run."""

    @classmethod
    def under(cls, rate: ServiceRate, requests_per_s: float) -> BusyNode:
        assert requests_per_s < rate.max_requests_per_s, "there is no steady state"
        # Each state's weight is the previous one's times arrival rate over service rate; logarithms can't overflow.
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
            prompt_queues=[
                PromptQueue.beside(max(1, round(num_others * (1 - prefilling_share))), rate, requests_per_s)
                for num_others in range(1, rate.num_slots)
            ],
        )

    @property
    def utilisation(self) -> float:
        """Share of the node's highest rate: 0 to 1."""
        return self.requests_per_s / self.rate.max_requests_per_s

    @property
    def num_running(self) -> float:
        """Average number of running sequences."""
        below = math.fsum(count * share for count, share in enumerate(self.shares))
        return below + self.rate.num_slots * self.waiting_share

    @property
    def num_waiting(self) -> float:
        """Average number of waiting sequences; the queue's length is geometrically distributed."""
        return self.waiting_share / (1 - self.utilisation)

    @property
    def queued_share(self) -> float:
        """Share of requests that find all slots full (Poisson arrivals see time averages)."""
        return self.shares[-1] + self.waiting_share

    @property
    def queue_time_s(self) -> float:
        """Average time in the queue (Little's law)."""
        return self.num_waiting / self.requests_per_s

    @property
    def latency_s(self) -> float:
        """Average end-to-end latency: in the queue and running (Little's law)."""
        return (self.num_waiting + self.num_running) / self.requests_per_s

    def ttft_s(self, percent: float) -> float:
        """The percentile `percent` of the time to first token, over requests."""
        return _percentile(self._ttft_tail, percent)

    def tpot_s(self, percent: float) -> float:
        """The percentile `percent` of the time per output token, over tokens."""
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
        """Share of the requests whose first token takes longer than `ttft_s`."""
        tail = 0.0
        for num_others, share in enumerate(self.shares[:-1]):
            spare_s = ttft_s - self.rate.first_token_s(num_others + 1)
            tail += share * (1.0 if spare_s < 0 else self._share_exceeding(num_others, spare_s))
        spare_s = max(0.0, ttft_s - self.rate.first_token_s(self.rate.num_slots))
        # Waits in the queue are exponentially distributed, as in Erlang's C model.
        return tail + self.queued_share * math.exp(-(self.rate.max_requests_per_s - self.requests_per_s) * spare_s)

    def _share_exceeding(self, num_others: int, spare_s: float) -> float:
        """Share of the requests that arrive while `num_others` run and wait longer than `spare_s` for a first step."""
        if not num_others:
            return 0.0
        queue = self.prompt_queues[num_others - 1]
        busy_share = min(MAX_BUSY_SHARE, queue.load / (1 - self.shares[0]))
        # If the queue is empty, a request waits for the end of the current step.
        behind_step = max(0.0, 1 - spare_s / self.rate.curve.step_s(num_others))
        return busy_share * queue.share_exceeding(spare_s) + (1 - busy_share) * behind_step


def _percentile(tail: Callable[[float], float], percent: float) -> float:
    """The time at which the decreasing `tail` reaches 1 - `percent` / 100, to a microsecond."""
    wanted = 1 - percent / 100
    above_s = 1.0
    while tail(above_s) > wanted:
        above_s *= 2
    below_s = 0.0
    while above_s - below_s > PRECISION_S:
        middle_s = (below_s + above_s) / 2
        below_s, above_s = (middle_s, above_s) if tail(middle_s) > wanted else (below_s, middle_s)
    return above_s
