"""Admission control: bounds the queue, and what each caller has in flight."""

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
"""`Retry-After` of a caller at its limit of requests in flight: one of them may have ended by then."""

GC_THRESHOLD = 64
"""Number of caller states above which unneeded ones are removed."""
MAX_DEBTORS = 16_384
"""Maximum callers remembered only because their buckets are not full. Beyond it, the fullest buckets are forgotten."""


@dataclass(slots=True)
class CallerState:
    """Mutable: one caller's requests in flight and its token bucket."""

    caller: Caller
    """With the limits of its latest request."""
    bucket: TokenBucket | None
    waiting: dict[str, int] = field(default_factory=dict)
    """Maps the ids of waiting requests to their tokens, in order of arrival."""
    num_waiting_tokens: int = 0
    num_requests: int = 0
    """Requests in flight, waiting and running."""

    def debt_s(self, now_s: float) -> float:
        """Time until its bucket is full, after which its state need not be remembered."""
        return 0.0 if self.bucket is None else self.bucket.seconds_until_full(now_s)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in flight."""

    state: CallerState
    num_tokens: int


class CallerQueue:
    """A copy of a caller's queue, from which requests to shed are chosen; the caller's state is not changed."""

    def __init__(self, state: CallerState) -> None:
        self._newest_first = reversed(state.waiting.items())
        self.num_requests = len(state.waiting)
        self.num_tokens = state.num_waiting_tokens

    def pop(self) -> tuple[str, int]:
        """Remove the newest request. Returns its id and its tokens."""
        request_id, num_tokens = next(self._newest_first)
        self.num_requests -= 1
        self.num_tokens -= num_tokens
        return request_id, num_tokens


class Admission:
    """Bounds the queue and each caller's requests in flight. A request waits until its first token. Event loop only.

    A full queue refuses the caller that has most in it. A caller with less is admitted, and the newest requests of the
    caller with most are shed. Otherwise one caller with a thousand requests would lock out all others.
    """

    def __init__(
        self, *, max_waiting_requests: int, max_waiting_tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_waiting_requests = max_waiting_requests
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._states: dict[str, CallerState] = {}
        self._waiting: dict[str, CallerState] = {}
        """Callers with waiting requests."""
        self._admitted: dict[str, Admitted] = {}
        self._gc_threshold = GC_THRESHOLD
        self._throughput = QueueThroughput(clock)
        self.num_waiting_requests = 0
        """Read only outside this class, like `num_waiting_tokens`."""
        self.num_waiting_tokens = 0

    def admit(self, requests: Sequence[GenerationRequest], caller: Caller = ANONYMOUS) -> list[str]:
        """Admit all of the requests or none. Returns the ids of requests to shed for them: end and release those at
        once.

        Raises RateLimitError if `caller` is at one of its limits, OverloadedError if the queue would exceed a bound,
        and InvalidRequestError for more requests than an empty queue holds. An empty queue admits any single request.
        """
        nums_tokens = [_num_tokens(request) for request in requests]
        state = self._state_of(caller)
        try:
            self._check_limits(state, len(requests), sum(nums_tokens))
            shed = self._choose_shed(state, len(requests), sum(nums_tokens))
        except Distilgpt2ApiError:
            self._forget_if_idle(state)
            raise
        for request, num_tokens in zip(requests, nums_tokens, strict=True):
            self._admitted[request.request_id] = Admitted(state, num_tokens)
            state.waiting[request.request_id] = num_tokens
        self._waiting[state.caller.name] = state
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
        """Count `num_requests` more requests of the caller as in flight, for work that consists of several requests."""
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
        """Charge a continuation of admitted work to the caller's token bucket, without checking limits."""
        if caller.is_batch:
            return
        state = self._state_of(caller)
        if state.bucket is not None:
            state.bucket.take(request.num_sequences * request.params.max_tokens, self._clock())

    def mark_started(self, request_id: str) -> None:
        """The request has its first token and leaves the queue. Idempotent."""
        if num_tokens := self._dequeue(request_id):
            self._throughput.on_start(num_tokens, self.num_waiting_requests)

    def release(self, request_id: str, *, num_unused_tokens: int = 0) -> None:
        """The request has ended. Its unused tokens are returned to its caller's bucket. Idempotent."""
        if num_tokens := self._dequeue(request_id):
            num_unused_tokens = num_tokens  # it has used none
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
            else:  # its limits have changed
                state.caller, state.bucket = caller, bucket
        return state

    def _check_limits(self, state: CallerState, num_requests: int, num_tokens: int) -> None:
        max_requests = state.caller.limits.max_requests
        if max_requests is not None and state.num_requests + num_requests > max_requests:
            raise RateLimitError(
                f"you have {state.num_requests} requests in flight and ask for {num_requests} more; your limit is"
                f" {max_requests}, and each prompt counts as a request",
                retry_after_s=IN_FLIGHT_RETRY_S,
            )
        if state.bucket is not None and (wait_s := state.bucket.wait_for(num_tokens, self._clock())) > 0:
            raise RateLimitError(
                f"you have reached your limit of {state.caller.limits.tokens_per_s:g} tokens per second; this request"
                f" needs {num_tokens} prompt and completion tokens",
                retry_after_s=wait_s,
            )

    def _choose_shed(self, state: CallerState, num_requests: int, num_tokens: int) -> list[str]:
        """The waiting requests to shed. Raises OverloadedError if no other caller has more in the queue."""
        if num_requests > 1:
            if num_requests > self._max_waiting_requests or num_tokens > self._max_waiting_tokens:
                raise InvalidRequestError(  # it does not fit an empty queue: retrying would not help
                    f"the request has {num_requests} prompts for {num_tokens} prompt and completion tokens; the"
                    f" queue holds {self._max_waiting_requests} prompts and {self._max_waiting_tokens} tokens: send"
                    " fewer at a time"
                )
        elif not self.num_waiting_requests:
            return []
        num_surplus = self.num_waiting_requests + num_requests - self._max_waiting_requests
        num_surplus_tokens = self.num_waiting_tokens + num_tokens - self._max_waiting_tokens
        if num_surplus <= 0 and num_surplus_tokens <= 0:
            return []
        shed: list[str] = []
        queues = [CallerQueue(other) for other in self._waiting.values()]
        while num_surplus > 0 or num_surplus_tokens > 0:
            if num_surplus > 0:
                longest = max(queues, key=attrgetter("num_requests"), default=None)
                has_less = longest is not None and len(state.waiting) + num_requests < longest.num_requests
            else:
                longest = max(queues, key=attrgetter("num_tokens"), default=None)
                has_less = longest is not None and state.num_waiting_tokens + num_tokens < longest.num_tokens
            if longest is None or not has_less:
                raise self.overloaded("the queue is full")
            request_id, num_freed_tokens = longest.pop()
            shed.append(request_id)
            num_surplus -= 1
            num_surplus_tokens -= num_freed_tokens
        return shed

    def _dequeue(self, request_id: str) -> int:
        """Remove the request from the queue. Returns its tokens, or 0 if it was not waiting."""
        admitted = self._admitted.get(request_id)
        if admitted is None or admitted.state.waiting.pop(request_id, None) is None:
            return 0
        state = admitted.state
        state.num_waiting_tokens -= admitted.num_tokens
        if not state.waiting:
            del self._waiting[state.caller.name]
        self.num_waiting_requests -= 1
        self.num_waiting_tokens -= admitted.num_tokens
        return admitted.num_tokens

    def _collect_garbage(self) -> None:
        """Remove idle callers whose buckets are full by now. Amortised: runs after the number of states has doubled."""
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
        """Remove an idle caller with a full bucket. Memory is bounded by callers in flight and `MAX_DEBTORS`."""
        if not state.num_requests and not state.debt_s(self._clock()):
            self._states.pop(state.caller.name, None)

    def overloaded(self, why: str) -> OverloadedError:
        """The error of a refused or shed request. It asks to retry when the present queue has been served."""
        wait_s = self._throughput.seconds_for(self.num_waiting_tokens)
        return OverloadedError(
            f"the service is overloaded: {self.num_waiting_requests} requests for {self.num_waiting_tokens} tokens"
            f" are waiting and {why}; try again later",
            retry_after_s=min(MAX_RETRY_AFTER_S, max(1.0, wait_s)),
        )


def _num_tokens(request: GenerationRequest) -> int:
    return request.num_sequences * (len(request.prompt_token_ids) + request.params.max_tokens)
