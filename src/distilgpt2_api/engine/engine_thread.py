"""The engine thread: reads its inbox, computes a step and delivers the output."""

import asyncio
import logging
import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine, StepOutputs

logger = logging.getLogger(__name__)

STOP_S = 10.0
"""Time for the last step to finish: far more than any step takes."""
POLL_S = 0.001
INBOX_S = 0.01
"""A request of a thousand prompts is a thousand messages. Handling them all at once would delay every stream."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Message: run a request, which arrived at `submitted_s` on the engine's clock."""

    request: GenerationRequest
    submitted_s: float
    caller: str
    is_continuation: bool
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """Message: end a request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Message: end the thread."""


Message = Submission | Abort | Stop


class EngineListener(Protocol):
    """Receives the thread's callbacks, on the event loop."""

    def note_loaded(self, engine: Engine) -> None: ...

    def deliver(self, outputs: StepOutputs) -> None: ...

    def fail(self, error: Exception) -> None:
        """Loading or running has failed, and no output follows."""


class EngineThread:
    """Communicates in two ways: `put` from any thread, and the listener's callbacks on the loop, one per step."""

    def __init__(self, load: Callable[[], Engine], *, listener: EngineListener, clock: Callable[[], float]) -> None:
        self._load = load
        self._listener = listener
        self._clock = clock
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.work_started_s: float | None = None
        """Start of the current step or message; None between them. May be read from any thread."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def put(self, message: Message) -> None:
        self._inbox.put(message)

    async def stop(self) -> None:
        """End the thread. Returns when it has ended or hangs: a daemon thread does not prevent the process's exit."""
        self._inbox.put(Stop())
        for _ in range(round(STOP_S / POLL_S)):
            if not self._thread.is_alive():
                return
            await asyncio.sleep(POLL_S)
        logger.warning("the engine thread has not ended within %g s", STOP_S)

    def _run(self) -> None:
        engine: Engine | None = None
        try:
            engine = self._load()
            self._call(self._listener.note_loaded, engine)
            while self._take_messages(engine):
                self.work_started_s = self._clock()
                outputs = engine.step()
                self.work_started_s = None
                if outputs:
                    self._call(self._listener.deliver, outputs)
        except Distilgpt2ApiError as error:
            self._call(self._listener.fail, error)
        except Exception as error:
            logger.exception("the engine thread failed")
            self._call(self._listener.fail, error)
        finally:
            if engine is not None:
                engine.close()

    def _take_messages(self, engine: Engine) -> bool:
        """Handle messages for up to `INBOX_S`, and leave the rest for after the next step, for which streams wait.

        Blocks while there is nothing to compute. Returns False to stop.
        """
        end_s = math.inf
        while not engine.has_work or (not self._inbox.empty() and self._clock() < end_s):
            message = self._inbox.get()
            self.work_started_s = self._clock()
            end_s = min(end_s, self.work_started_s + INBOX_S)
            match message:
                case Submission(request, submitted_s, caller, is_continuation, is_batch):
                    engine.add(
                        request,
                        submitted_s=submitted_s,
                        caller=caller,
                        is_continuation=is_continuation,
                        is_batch=is_batch,
                    )
                case Abort(request_id):
                    engine.abort(request_id)
                case Stop():
                    return False
            self.work_started_s = None
        return True

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, so nothing receives the call.
            logger.warning("the event loop ended before the engine")
