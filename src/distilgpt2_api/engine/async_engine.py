"""The engine for asyncio code: admission, streams, draining, and the engine thread's callbacks."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum

from distilgpt2_api.core.caller import ANONYMOUS, Caller
from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import (
    Distilgpt2ApiError,
    DrainingError,
    EngineFailedError,
    EngineHungError,
    InvalidRequestError,
    NotReadyError,
)
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.engine import Engine, StepOutputs
from distilgpt2_api.engine.engine_thread import Abort, EngineThread, Submission
from distilgpt2_api.engine.params_budget import ParamsBudget
from distilgpt2_api.engine.request_stream import RequestStream
from distilgpt2_api.engine.validation import check_priority, validate_request
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


class AsyncEngine:
    """Access to the engine from an event loop. Every method runs on that loop.

    `load` builds the engine, or waits for it, on the engine thread, so that the port can be bound while a model loads.
    `on_ready` is called on the loop as soon as requests are accepted.
    If loading or running fails, requests in flight get their errors, then `on_failure` is called on the loop. A step
    that takes longer than `step_timeout_s` is a failure.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        admission: Admission,
        on_ready: Callable[[], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        step_timeout_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admission = admission
        self._params_budget = ParamsBudget()
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._watch: asyncio.Task[None] | None = None
        self.state = EngineState.LOADING
        """Read-only for others."""
        self._streams: dict[str, RequestStream] = {}
        self._engine: Engine | None = None
        self._loaded = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_drain_holds = 0
        self._is_closed = False
        self._thread = EngineThread(load, listener=self, clock=clock)

    # ---- for entry points

    @property
    def is_healthy(self) -> bool:
        """Whether the engine can serve, now or after loading."""
        return self.state is not EngineState.FAILED

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded_engine().tokenizer

    @property
    def grammars(self) -> GrammarCompiler:
        return self._loaded_engine().grammars

    @property
    def model_config(self) -> ModelConfig:
        return self._loaded_engine().config

    @property
    def max_num_sequences(self) -> int:
        """The most sequences that run at the same time."""
        return self._loaded_engine().max_num_sequences

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and `hold_drain` is not active."""
        return not self._streams and not self._num_drain_holds

    @property
    def num_requests(self) -> int:
        """Requests in flight, waiting and running."""
        return len(self._streams)

    @property
    def num_sequences(self) -> int:
        """Sequences of all requests in flight, waiting and running."""
        return sum(stream.num_sequences for stream in self._streams.values())

    async def start(self) -> None:
        """Start the engine thread, which loads the model; returns at once."""
        loop = asyncio.get_running_loop()
        self._thread.start(loop)
        self._watch = loop.create_task(self._watch_steps())

    async def wait_loaded(self) -> None:
        """Return once the model is loaded. Raises EngineFailedError if loading fails."""
        await self._loaded.wait()
        self._loaded_engine()

    def submit(
        self, request: GenerationRequest, *, caller: Caller = ANONYMOUS, is_continuation: bool = False
    ) -> RequestStream:
        """`submit_all` for one request."""
        (stream,) = self.submit_all([request], caller=caller, is_continuation=is_continuation)
        return stream

    def submit_all(
        self, requests: Sequence[GenerationRequest], *, caller: Caller = ANONYMOUS, is_continuation: bool = False
    ) -> list[RequestStream]:
        """Admit all of the requests or none. Waiting requests that are shed for them end with OverloadedError.

        Raises InvalidRequestError, OverloadedError, DrainingError, NotReadyError or EngineFailedError. A continuation
        belongs to admitted work within `hold_drain`, so neither a full queue nor a drain refuses it. The bounds of the
        queue don't apply to batch work.
        """
        engine = self._loaded_engine()
        if self._is_closed or (self.state is not EngineState.READY and not is_continuation):
            raise DrainingError("the service is shutting down", retry_after_s=5.0)
        for request in requests:
            validate_request(request, engine.config, engine.tokenizer)
            check_priority(request.priority, caller)
            if request.request_id in self._streams:
                raise InvalidRequestError(f"request id {request.request_id!r} is already in flight", param="request_id")
        if is_continuation:
            for request in requests:
                self._admission.charge(request, caller)
        elif not caller.is_batch:  # its sender bounds it, and it is not in the queue
            for request in requests:
                self._params_budget.check(request.params)
            for request_id in self._admission.admit(requests, caller):
                self._abort(
                    self._streams[request_id], self._admission.overloaded("other callers have fewer in the queue")
                )
        return [self._begin(request, caller, is_continuation=is_continuation) for request in requests]

    def count_in_flight(self, caller: Caller, num_requests: int) -> AbstractContextManager[None]:
        """Count `num_requests` requests of the caller as in flight, for work that consists of successive requests."""
        return self._admission.count_in_flight(caller, num_requests)

    @contextmanager
    def hold_drain(self) -> Iterator[None]:
        """Make a drain wait for work that consists of several successive requests."""
        self._num_drain_holds += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_drain_holds -= 1
            self._note_idle()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests. Let those in flight finish for up to `timeout_s` seconds, then fail them."""
        if self.state in (EngineState.LOADING, EngineState.READY):
            self.state = EngineState.DRAINING
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            self._is_closed = True
            for stream in list(self._streams.values()):
                self._abort(stream, DrainingError("the service shut down before the request was finished"))

    async def stop(self) -> None:
        """Fail requests in flight and end the thread. Returns when it has ended."""
        if self._watch is not None:
            self._watch.cancel()
        await self.drain(0.0)
        await self._thread.stop()
        if self.state is not EngineState.FAILED:
            self.state = EngineState.STOPPED

    def _loaded_engine(self) -> Engine:
        if self.state is EngineState.FAILED:
            raise EngineFailedError("the engine has stopped", retry_after_s=10.0)
        if self._engine is None:
            raise NotReadyError("the model is still loading")
        return self._engine

    def _begin(self, request: GenerationRequest, caller: Caller, *, is_continuation: bool) -> RequestStream:
        stream = self._streams[request.request_id] = RequestStream(request, abort=self._abort)
        self._params_budget.hold(request.params)
        self._idle.clear()
        self._thread.put(Submission(request, self._clock(), caller.name, is_continuation, caller.is_batch))
        return stream

    def _abort(self, stream: RequestStream, error: Distilgpt2ApiError | None = None) -> None:
        self._end(stream, error)
        self._thread.put(Abort(stream.request_id))

    def _end(self, stream: RequestStream, error: Distilgpt2ApiError | None) -> None:
        if self._streams.pop(stream.request_id, None) is None:
            return
        self._admission.release(stream.request_id, num_unused_tokens=stream.num_unused_tokens)
        self._params_budget.release(stream.params)
        stream.end(error)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.is_idle:
            self._idle.set()

    # ---- for the engine thread: an EngineListener

    def note_loaded(self, engine: Engine) -> None:
        self._engine = engine
        self._loaded.set()
        if self.state is EngineState.LOADING:
            self.state = EngineState.READY
            if self._on_ready is not None:
                self._on_ready()

    def deliver(self, outputs: StepOutputs) -> None:
        try:
            for request_id in outputs.started:
                self._admission.mark_started(request_id)
            for request_id, deltas in outputs.deltas.items():
                stream = self._streams.get(request_id)
                if stream is not None and stream.push(deltas):  # None: aborted while the step ran
                    self._end(stream, None)
        except Exception as error:
            # Otherwise the loop would only log it, and requests that wait for these outputs would never end.
            logger.exception("outputs of a step could not be delivered")
            self.fail(error)

    def fail(self, error: Exception) -> None:
        if self.state is EngineState.FAILED:
            return
        self.state = EngineState.FAILED
        self._loaded.set()
        for stream in list(self._streams.values()):
            self._end(stream, EngineFailedError("the engine stopped after an internal error"))
        if self._on_failure is not None:
            self._on_failure(error)

    async def _watch_steps(self) -> None:
        """Detect a step, or other work of the engine thread, that hangs. The thread itself can't."""
        interval_s = min(1.0, self._step_timeout_s / 4)
        seen_started_s: float | None = None
        num_looks = 0  # not the time: a step does not hang while the process is paused
        while self.state is not EngineState.FAILED:
            await asyncio.sleep(interval_s)
            started_s = self._thread.work_started_s
            num_looks = num_looks + 1 if started_s is not None and started_s == seen_started_s else 0
            seen_started_s = started_s
            if num_looks * interval_s >= self._step_timeout_s:
                self.fail(EngineHungError(f"the engine has been in one step longer than {self._step_timeout_s:g} s"))
