"""The engine's own thread: empties its inbox, computes a step, hands over what came of it."""

from __future__ import annotations

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
"""What a step may take at the end: far longer than any takes."""
POLL_S = 0.001
INBOX_S = 0.01
"""A request of a thousand prompts is a thousand messages: taken all at once they would be a gap in every stream."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Inbox: a request, and when it came on the engine's clock, in seconds."""

    request: GenerationRequest
    submitted_s: float
    caller: str
    is_continuation: bool
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """Inbox: end a request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Inbox: end the thread."""


Message = Submission | Abort | Stop


class EngineListener(Protocol):
    """Whom the thread tells, on the event loop."""

    def note_loaded(self, engine: Engine) -> None: ...

    def deliver(self, outputs: StepOutputs) -> None: ...

    def fail(self, error: Exception) -> None:
        """Loading or running ended with an error: nothing comes any more."""


class EngineThread:
    """Two crossings: `put` from any thread, and the listener's callbacks on the loop, one a step."""

    def __init__(self, load: Callable[[], Engine], *, listener: EngineListener, clock: Callable[[], float]) -> None:
        self._load = load
        self._listener = listener
        self._clock = clock
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.work_started_s: float | None = None
        """When the step that runs now began, or the message that is handled now; None while there is neither. Read from
        any thread."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def put(self, message: Message) -> None:
        self._inbox.put(message)

    async def stop(self) -> None:
        """End the thread; returns when it has ended, or hangs: it is a daemon, and the process can end without it."""
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
        """Take messages for `INBOX_S` at most: the rest waits until after a step, for running streams wait for that
        step. Wait at the inbox while there is nothing to compute. False: stop.
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
            # The loop is closed: nobody is left to hear it.
            logger.warning("the event loop ended before the engine")
