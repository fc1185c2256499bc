"""The application's lifespan: loads the model at startup, drains and stops the engine at shutdown."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from distilgpt2_api.batch.store.ports import BatchService
from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.core.exit_status import EXIT_ENGINE, EXIT_MODEL
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.server.lifecycle.drain import DrainOnSignal, ShutdownState
from distilgpt2_api.server.lifecycle.server_control import SERVER_CONTROL, ServerControl
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.usage.key_usage import KeyUsage

logger = logging.getLogger(__name__)

ERROR_FLUSH_S = 0.5
"""Time to send the error responses of the requests that a failing engine aborted."""
HEARTBEAT_S = 1.0
"""How often a worker that loads its model before it listens sends a heartbeat."""


def build_lifespan(
    engine: AsyncEngine,
    shutdown: ShutdownState,
    *,
    drain_s: float,
    max_request_s: float,
    traces: Traces | None,
    batch_service: BatchService | None,
    usage: KeyUsage | None,
    chat_template: ChatTemplate | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Builds a lifespan that loads the model after the port is bound: until then, probes and requests get 503.

    A worker that replaces another loads the model first. Its clients wait, and none gets a 503.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        control: ServerControl | None = getattr(app.state, SERVER_CONTROL, None)
        drain = DrainOnSignal(
            engine=engine,
            shutdown=shutdown,
            drain_s=drain_s,
            max_request_s=max_request_s,
            control=control,
            before=None if batch_service is None else batch_service.worker.stop,
        )
        try:
            with drain:  # first: the engine logs that it serves, and a supervisor may then send a signal at once
                await engine.start()
                if usage is not None:
                    usage.start()
                if control is not None and control.is_replacement:
                    await _wait_loaded(engine, control)
                if batch_service is not None:
                    batch_service.worker.start()
                yield
        finally:
            if batch_service is not None:
                await batch_service.close()
            await engine.stop()
            if usage is not None:
                await usage.close()
            if chat_template is not None:
                chat_template.close()
            if traces is not None:
                await traces.close()

    return lifespan


async def _wait_loaded(engine: AsyncEngine, control: ServerControl) -> None:
    """Return once the model is loaded, or has failed to load: `on_failure` reports that and ends the process."""
    loading = asyncio.ensure_future(engine.wait_loaded())
    while not loading.done():
        control.note_alive()
        await asyncio.wait({loading}, timeout=HEARTBEAT_S)
    loading.exception()


def exit_on_failure(exit_process: Callable[[int], object]) -> Callable[[Exception], None]:
    """AsyncEngine's `on_failure`: logs one clear line, then ends the process for its supervisor to restart."""

    def fail(error: Exception) -> None:
        is_model = isinstance(error, ModelError)
        if is_model:
            logger.error("can't serve this model: %s", error)
        else:
            logger.error("the engine has failed (%s); the process ends", type(error).__name__)
        asyncio.get_running_loop().call_later(ERROR_FLUSH_S, exit_process, EXIT_MODEL if is_model else EXIT_ENGINE)

    return fail
