"""The service in process, without a socket and without limits on callers: for one command or one batch worker."""

import logging
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import click

from distilgpt2_api.application import request_limits, served_model
from distilgpt2_api.batch.files.line_output import LineHandler
from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.core.caller import LOWEST_PRIORITY, CallerLimits
from distilgpt2_api.core.errors import DrainingError, EngineFailedError, UnavailableError
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine_preload import EnginePreload
from distilgpt2_api.server.app import create_app
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.http.in_process import post
from distilgpt2_api.server.protocols.openai.errors import raise_refusal
from distilgpt2_api.settings import Settings
from distilgpt2_api.text.chat_templates.files import load_chat_template

ENDINGS: dict[str, type[UnavailableError]] = {"draining": DrainingError, "engine_failed": EngineFailedError}
"""Error codes that are final in this process: a retry can't succeed."""

logger = logging.getLogger(__name__)


class FailuresOnly:
    """An AccessLog of the service's own failures only. The outcome of each request is in its response."""

    def info(self, event: str, **fields: object) -> None:
        """Not logged."""

    def debug(self, event: str, **fields: object) -> None:
        """Not logged."""

    def exception(self, event: str, **fields: object) -> None:
        logger.exception(event, extra=fields)  # noqa: LOG004 - only called in exception handlers


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[LineHandler]:
    """Load the model and yield a handler that answers batch lines as the service's routes would. Raises ModelError.

    There are no other callers, so queue, rate limits and timeouts are off. SIGINT and SIGTERM cancel what is in
    flight. The handler then raises DrainingError; EngineFailedError if the engine failed; else UnavailableError.
    """
    preload = EnginePreload(settings, report=lambda line: click.echo(line, err=True))
    location = preload.location
    failures: list[Exception] = []
    engine = AsyncEngine(
        preload.result,
        admission=Admission(max_waiting_requests=sys.maxsize, max_waiting_tokens=sys.maxsize),
        on_failure=failures.append,
        step_timeout_s=settings.step_timeout_s,
    )
    app = create_app(
        engine=engine,
        model=served_model(location.name, preload.config, settings),
        limits=replace(
            request_limits(settings), max_uploads_bytes=sys.maxsize, body_timeout_s=math.inf, timeout_s=math.inf
        ),
        registry=preload.registry,
        engine_metrics=preload.metrics,
        access_log=FailuresOnly(),
        access=Access(address_limits=CallerLimits(min_priority=LOWEST_PRIORITY)),
        drain_s=0.0,
        chat_template=load_chat_template(location.folder, settings.chat_template),
        sampling_defaults=settings.sampling_defaults(location.folder),
    )
    async with app.router.lifespan_context(app):
        try:
            await engine.wait_loaded()
        except EngineFailedError:
            raise failures[0] from None

        async def handle_line(line: InputLine) -> Answer:
            answer = await post(app, line.url, line.body)
            raise_refusal(answer, ENDINGS)
            return Answer(status_code=answer.status, request_id=answer.headers["x-request-id"], body=answer.body)

        yield handle_line
