"""How much may wait, and how much each caller may have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

from distilgpt2_api.core.caller import ANONYMOUS, Caller
from distilgpt2_api.core.errors import Distilgpt2ApiError, InvalidRequestError, OverloadedError, RateLimitError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.queue_throughput import QueueThroughput
from distilgpt2_api.engine.token_bucket import TokenBucket

MAX_RETRY_AFTER_S = 120.0
IN_FLIGHT_RETRY_S = 1.0
"""When a caller with all of its requests in flight may try again: one of them may have ended by then."""

GC_THRESHOLD = 64
"""So many accounts are kept without asking who of them is still needed."""
MAX_DEBTORS = 16_384
"""Callers without a request in flight whose buckets are not full yet; beyond that the smallest debts are forgotten."""


@dataclass(slots=True)
class CallerState:
    """Mutable: what one caller has, and how fast it may go on."""

    caller: Caller
    """With the limits that it had when it last came."""
    bucket: TokenBucket | None
    waiting: dict[str, int] = field(default_factory=dict)
    """Request id to its tokens, in the order of arrival."""
    num_waiting_tokens: int = 0
    num_requests: int = 0
    """In flight: waiting and running."""

    def debt_s(self, now_s: float) -> float:
        """How long it takes until nothing need be remembered of it, if it asks for nothing."""
        return 0.0 if self.bucket is None else self.bucket.seconds_until_full(now_s)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in flight."""

    state: CallerState
    num_tokens: int


class Line:
    """What one caller has waiting, while it is asked who gives way: nothing is taken from the caller itself."""

    def __init__(self, state: CallerState) -> None:
        self._newest_first = reversed(state.waiting.items())
        self.num_requests = len(state.waiting)
        self.num_tokens = state.num_waiting_tokens

    def pop(self) -> tuple[str, int]:
        """The newest: its id and its tokens."""
        request_id, num_tokens = next(self._newest_first)
        self.num_requests -= 1
        self.num_tokens -= num_tokens
        return request_id, num_tokens


class Admission:
    """Bounds what waits and what each caller has in flight. A request waits until its first token; event loop only.

    A full queue refuses whoever has most in it. Somebody with less than that gets in, and the newest of the others'
    gives way: else one caller with a thousand requests would shut out all others.
    """

    def __init__(
        self, *, max_waiting_requests: int, max_waiting_tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_waiting_requests = max_waiting_requests
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._states: dict[str, CallerState] = {}
        self._lines: dict[str, CallerState] = {}
        """Those that have requests waiting."""
        self._admitted: dict[str, Admitted] = {}
        self._gc_threshold = GC_THRESHOLD
        self._throughput = QueueThroughput(clock)
        self.num_waiting_requests = 0
        """Read only, for others."""
        self.num_waiting_tokens = 0
        """Read only, for others."""

    def admit(self, requests: Sequence[GenerationRequest], caller: Caller = ANONYMOUS) -> list[str]:
        """Count requests in: all of them, or none. Returns the ids of waiting requests that lose their places to them:
        to be ended, and released, at once.

        Raises RateLimitError where `caller` has all that it may have, OverloadedError where a bound of the queue would
        be passed, InvalidRequestError for more requests at once than the queue ever holds. An empty queue takes any
        single request.
        """
        nums_tokens = [_num_tokens(request) for request in requests]
        state = self._state_of(caller)
        try:
            self._check_limits(state, len(requests), sum(nums_tokens))
            shed = self._make_room(state, len(requests), sum(nums_tokens))
        except Distilgpt2ApiError:
            self._forget_if_idle(state)
            raise
        for request, num_tokens in zip(requests, nums_tokens, strict=True):
            self._admitted[request.request_id] = Admitted(state, num_tokens)
            state.waiting[request.request_id] = num_tokens
        self._lines[state.caller.name] = state
        state.num_requests += len(requests)
        state.num_waiting_tokens += sum(nums_tokens)
        self.num_waiting_requests += len(requests)
        self.num_waiting_tokens += sum(nums_tokens)
        self._throughput.on_enqueue()
        if state.bucket is not None:
            state.bucket.take(sum(nums_tokens), self._clock())
        return shed

    @contextmanager
    def count_in_flight(self, caller: Caller, num_requests: int) -> Iterator[None]:
        """So many more of its requests are in flight, for work that goes on after its first part has ended."""
        if caller.is_batch:
            yield
            return
        state = self._state_of(caller)
        state.num_requests += num_requests
        try:
            yield
        finally:
            state.num_requests -= num_requests
            self._forget_if_idle(state)

    def charge(self, request: GenerationRequest, caller: Caller) -> None:
        """More of what was admitted before: neither a limit nor the queue refuses it, but the rate has it to bear."""
        if caller.is_batch:
            return
        state = self._state_of(caller)
        if state.bucket is not None:
            state.bucket.take(request.num_sequences * request.params.max_tokens, self._clock())

    def mark_started(self, request_id: str) -> None:
        """The request waits no longer. Idempotent."""
        if num_tokens := self._leave_line(request_id):
            self._throughput.on_start(num_tokens, self.num_waiting_requests)

    def release(self, request_id: str, *, num_unused_tokens: int = 0) -> None:
        """The request has ended, started or not. What it did not use is its caller's again. Idempotent."""
        if num_tokens := self._leave_line(request_id):
            num_unused_tokens = num_tokens  # it used nothing
            self._throughput.on_leave(self.num_waiting_requests)
        admitted = self._admitted.pop(request_id, None)
        if admitted is None:
            return
        state = admitted.state
        state.num_requests -= 1
        if state.bucket is not None:
            state.bucket.take(-num_unused_tokens, self._clock())
        self._forget_if_idle(state)

    def _state_of(self, caller: Caller) -> CallerState:
        state = self._states.get(caller.name)
        if state is None or state.caller.limits != caller.limits:
            limits = caller.limits
            bucket = None
            if limits.tokens_per_s is not None:
                bucket = TokenBucket(limits.tokens_per_s, limits.burst_tokens, now_s=self._clock())
            if state is None:
                self._collect_garbage()
                state = self._states[caller.name] = CallerState(caller, bucket)
            else:  # its limits were changed meanwhile
                state.caller, state.bucket = caller, bucket
        return state

    def _check_limits(self, state: CallerState, num_requests: int, num_tokens: int) -> None:
        max_requests = state.caller.limits.max_requests
        if max_requests is not None and state.num_requests + num_requests > max_requests:
            raise RateLimitError(
                f"you have {state.num_requests} requests in flight, and may have {max_requests}; each prompt is"
                f" one request, and this is for {num_requests} more",
                retry_after_s=IN_FLIGHT_RETRY_S,
            )
        if state.bucket is not None and (wait_s := state.bucket.wait_for(num_tokens, self._clock())) > 0:
            raise RateLimitError(
                f"you have used your {state.caller.limits.tokens_per_s:g} tokens per second; this request is for"
                f" {num_tokens} prompt and completion tokens",
                retry_after_s=wait_s,
            )

    def _make_room(self, state: CallerState, num_requests: int, num_tokens: int) -> list[str]:
        """The waiting requests that must leave to make room. Raises OverloadedError if they had to be their equals."""
        if num_requests > 1:
            self._check_size(num_requests, num_tokens)
        elif not self.num_waiting_requests:
            return []
        num_surplus = self.num_waiting_requests + num_requests - self._max_waiting_requests
        num_surplus_tokens = self.num_waiting_tokens + num_tokens - self._max_waiting_tokens
        if num_surplus <= 0 and num_surplus_tokens <= 0:
            return []
        shed: list[str] = []
        lines = [Line(other) for other in self._lines.values()]
        while num_surplus > 0 or num_surplus_tokens > 0:
            if num_surplus > 0:
                longest = max(lines, key=attrgetter("num_requests"), default=None)
                has_less = longest is not None and len(state.waiting) + num_requests < longest.num_requests
            else:
                longest = max(lines, key=attrgetter("num_tokens"), default=None)
                has_less = longest is not None and state.num_waiting_tokens + num_tokens < longest.num_tokens
            if longest is None or not has_less:
                raise self.overloaded("the queue is full")
            request_id, num_freed_tokens = longest.pop()
            shed.append(request_id)
            num_surplus -= 1
            num_surplus_tokens -= num_freed_tokens
        return shed

    def _check_size(self, num_requests: int, num_tokens: int) -> None:
        """Raise InvalidRequestError for what does not fit an empty queue: no use in coming back later."""
        if num_requests > self._max_waiting_requests or num_tokens > self._max_waiting_tokens:
            raise InvalidRequestError(
                f"{num_requests} prompts for {num_tokens} prompt and completion tokens in one request; the queue holds"
                f" {self._max_waiting_requests} prompts and {self._max_waiting_tokens} tokens: send fewer at a time"
            )

    def _leave_line(self, request_id: str) -> int:
        """The request waits no longer; its tokens, or 0 if it did not."""
        admitted = self._admitted.get(request_id)
        if admitted is None or admitted.state.waiting.pop(request_id, None) is None:
            return 0
        state = admitted.state
        state.num_waiting_tokens -= admitted.num_tokens
        if not state.waiting:
            del self._lines[state.caller.name]
        self.num_waiting_requests -= 1
        self.num_waiting_tokens -= admitted.num_tokens
        return admitted.num_tokens

    def _collect_garbage(self) -> None:
        """Forget those who have paid off their debts since their last request; rarely, so that it costs little."""
        if len(self._states) < self._gc_threshold:
            return
        now_s = self._clock()
        debtors = sorted(
            (state for state in self._states.values() if not state.num_requests),
            key=lambda state: state.debt_s(now_s),
            reverse=True,
        )
        for index, state in enumerate(debtors):
            if index >= MAX_DEBTORS or not state.debt_s(now_s):
                del self._states[state.caller.name]
        self._gc_threshold = max(GC_THRESHOLD, 2 * len(self._states))

    def _forget_if_idle(self, state: CallerState) -> None:
        """Memory is bounded by those in flight, and by `MAX_DEBTORS`."""
        if not state.num_requests and not state.debt_s(self._clock()):
            self._states.pop(state.caller.name, None)

    def overloaded(self, why: str) -> OverloadedError:
        """What to tell whoever gets no place: come back when the present queue has been served."""
        wait_s = self._throughput.seconds_for(self.num_waiting_tokens)
        return OverloadedError(
            f"the service is overloaded: {self.num_waiting_requests} requests for {self.num_waiting_tokens} tokens"
            f" wait already, {why}; try again later",
            retry_after_s=min(MAX_RETRY_AFTER_S, max(1.0, wait_s)),
        )


def _num_tokens(request: GenerationRequest) -> int:
    return request.num_sequences * (len(request.prompt_token_ids) + request.params.max_tokens)
