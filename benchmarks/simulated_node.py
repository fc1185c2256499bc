"""A node without an engine: a node curve gives the steps' times; slots, chunks and cache follow the scheduler."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field

from distilgpt2_api.capacity.node_curve import NodeCurve
from distilgpt2_api.core.step_budget import prompt_budget


@dataclass(slots=True, kw_only=True)
class SimulatedRequest:
    """A request. Mutable: the node that serves it sets its times and counts."""

    arrival_s: float
    num_prompt_tokens: int
    num_completion_tokens: int
    prefix: int | None = None
    """The index of its shared beginning; None: it shares none."""
    num_prefix_tokens: int = 0
    num_cached_tokens: int = 0
    first_token_s: float = 0.0
    end_s: float = 0.0

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_completion_tokens

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - self.arrival_s


@dataclass(slots=True)
class _Prefill:
    request: SimulatedRequest
    num_left: int


@dataclass(slots=True)
class SimulatedNode:
    """Owns its requests. The caller calls `begin_step` and `end_step` alternately, and keeps the time."""

    curve: NodeCurve
    num_requests: int = 0
    """Number of waiting and running requests."""
    _waiting: deque[SimulatedRequest] = field(default_factory=deque)
    _prefills: deque[_Prefill] = field(default_factory=deque)
    _ready: list[SimulatedRequest] = field(default_factory=list)
    """Requests whose prompts the current step completes."""
    _ends: defaultdict[int, list[SimulatedRequest]] = field(default_factory=lambda: defaultdict(list))
    """Running requests by the step that samples their last tokens."""
    _prefixes: OrderedDict[int, int] = field(default_factory=OrderedDict)
    """Cached beginnings and their tokens, the least recently used first."""
    _num_decoding: int = 0
    _num_steps: int = 0
    _num_held_tokens: int = 0
    _num_kept_tokens: int = 0
    is_busy: bool = False
    """Whether a step is running."""

    def submit(self, request: SimulatedRequest) -> None:
        assert request.num_tokens <= self.curve.kv_cache_tokens, "it would wait forever"
        self._waiting.append(request)
        self.num_requests += 1

    def begin_step(self) -> float | None:
        """Seconds that the next step takes, or None if there is nothing to do."""
        assert not self.is_busy
        self._admit()
        if not self._num_decoding and not self._prefills:
            return None
        num_waiting = len(self._prefills) + len(self._waiting)
        budget = prompt_budget(self.curve.max_step_tokens - self._num_decoding, self._num_decoding, num_waiting)
        num_prefilled = 0
        while self._prefills and num_prefilled < budget:
            first = self._prefills[0]
            num_new = min(first.num_left, budget - num_prefilled)
            num_prefilled += num_new
            first.num_left -= num_new
            if not first.num_left:
                self._ready.append(first.request)
                self._prefills.popleft()
        self.is_busy = True
        num_rows = max(1, self._num_decoding + len(self._ready))
        return self.curve.step_s(num_rows) + num_prefilled / self.curve.prefill_tokens_per_s

    def end_step(self, now_s: float) -> list[SimulatedRequest]:
        """End the step; return the requests that ended with it."""
        self.is_busy = False
        self._num_steps += 1
        ended = self._ends.pop(self._num_steps, [])
        self._num_decoding -= len(ended)
        for request in self._ready:
            request.first_token_s = now_s
            self._keep_prefix(request)
            if request.num_completion_tokens == 1:
                ended.append(request)
            else:
                self._ends[self._num_steps + request.num_completion_tokens - 1].append(request)
                self._num_decoding += 1
        self._ready.clear()
        for request in ended:
            request.end_s = now_s
            self._num_held_tokens -= request.num_tokens
        self.num_requests -= len(ended)
        return ended

    def _admit(self) -> None:
        while self._waiting:
            request = self._waiting[0]
            num_running = self._num_decoding + len(self._prefills)
            has_place = num_running < self.curve.max_num_sequences
            if not has_place or self._num_held_tokens + request.num_tokens > self.curve.kv_cache_tokens:
                return
            self._waiting.popleft()
            self._num_held_tokens += request.num_tokens
            if request.prefix is not None and request.prefix in self._prefixes:
                self._prefixes.move_to_end(request.prefix)
                # The last token of a prompt is always computed, because its logits are needed.
                request.num_cached_tokens = min(self._prefixes[request.prefix], request.num_prompt_tokens - 1)
            self._prefills.append(_Prefill(request, request.num_prompt_tokens - request.num_cached_tokens))
            self._make_room()

    def _keep_prefix(self, request: SimulatedRequest) -> None:
        if request.prefix is not None and request.prefix not in self._prefixes:
            self._prefixes[request.prefix] = request.num_prefix_tokens
            self._num_kept_tokens += request.num_prefix_tokens
            self._make_room()

    def _make_room(self) -> None:
        while self._num_kept_tokens + self._num_held_tokens > self.curve.kv_cache_tokens:
            _, num_tokens = self._prefixes.popitem(last=False)
            self._num_kept_tokens -= num_tokens
