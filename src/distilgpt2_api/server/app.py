"""Builds the FastAPI application from its parts."""

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from distilgpt2_api.batch.store.objects import ENDED_STATUSES
from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.sampling_defaults import NO_DEFAULTS, SamplingDefaults
from distilgpt2_api.engine.async_engine import AsyncEngine, EngineState
from distilgpt2_api.observability.batch_metrics import BatchMetrics
from distilgpt2_api.observability.engine_metrics import EngineMetrics
from distilgpt2_api.observability.http_metrics import HttpMetrics
from distilgpt2_api.observability.metrics_page import MetricsPage
from distilgpt2_api.observability.service_metrics import add_service_metrics
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.observability.usage_metrics import UsageMetrics
from distilgpt2_api.server.auth.access import OPEN, Access
from distilgpt2_api.server.auth.middleware import Authentication
from distilgpt2_api.server.http.errors import REFUSAL_CODES, describe_error
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.middleware.cross_origin import CrossOrigin
from distilgpt2_api.server.http.middleware.middleware import AccessLog, RequestMiddleware
from distilgpt2_api.server.http.requests.body import Uploads
from distilgpt2_api.server.http.routing.paths import strip_trailing_slash
from distilgpt2_api.server.http.routing.protocol import Protocols
from distilgpt2_api.server.http.routing.routing_errors import answer_http_error
from distilgpt2_api.server.lifecycle.drain import ShutdownState
from distilgpt2_api.server.lifecycle.lifespan import build_lifespan
from distilgpt2_api.server.lifecycle.server_control import SERVER_CONTROL, ServerControl
from distilgpt2_api.server.openapi.document import build_openapi
from distilgpt2_api.server.operation import metrics_and_version, probes
from distilgpt2_api.server.pages import docs, playground
from distilgpt2_api.server.protocols.llama_cpp.route import LLAMA_CPP
from distilgpt2_api.server.protocols.ollama.route import OLLAMA
from distilgpt2_api.server.protocols.openai.batches.line_client import line_asker
from distilgpt2_api.server.protocols.openai.protocol import OPENAI
from distilgpt2_api.server.protocols.score.route import SCORE
from distilgpt2_api.server.protocols.tgi.route import TGI
from distilgpt2_api.server.protocols.usage.route import USAGE
from distilgpt2_api.server.protocols.vllm.route import VLLM
from distilgpt2_api.server.protocols.workshop.route import WORKSHOP, PromptRoute
from distilgpt2_api.server.schema.validation import error_of
from distilgpt2_api.server.service import ServedModel, Service
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.usage.key_usage import KeyUsage

DESCRIPTION = """DistilGPT-2, and any GPT-2 checkpoint, over HTTP: the workshop's `GET /{prompt}`, OpenAI's completions,
Hugging Face's TGI, Ollama's API and llama.cpp's.

Every error is an `ErrorResponse`, on TGI's routes a `TgiErrorResponse`, on Ollama's an `OllamaErrorResponse`, on
llama.cpp's a `LlamaErrorResponse`. Every answer has an `x-request-id`: the request's own, if it sent one."""

VERSION = version("distilgpt2-api")
"""The installed package's. It takes a millisecond to read."""
PROTOCOLS = Protocols(OPENAI, SCORE, TGI, OLLAMA, LLAMA_CPP, USAGE, VLLM, WORKSHOP)
"""All protocols. A request that belongs to none gets the first one's errors."""


def create_app(
    *,
    engine: AsyncEngine,
    model: ServedModel,
    limits: RequestLimits,
    registry: CollectorRegistry,
    engine_metrics: EngineMetrics,
    access_log: AccessLog,
    drain_s: float,
    metrics_labels: Mapping[str, str] | None = None,
    traces: Traces | None = None,
    access: Access = OPEN,
    root_path: str = "",
    chat_template: ChatTemplate | None = None,
    sampling_defaults: SamplingDefaults = NO_DEFAULTS,
    draw_seed: Callable[[], int] | None = None,
    clock: Callable[[], float] = time.time,
    protocols: Protocols = PROTOCOLS,
    open_batch_service: OpenBatchService | None = None,
    usage: KeyUsage | None = None,
) -> FastAPI:
    """An application whose lifespan starts and stops `engine` and `traces`.

    `metrics_labels` are added to every sample of `/metrics`.
    `open_batch_service`: files and batches; None disables them. `usage`: counts the usage of the keys in `access`.
    """
    metrics_page = MetricsPage(
        registry,
        refresh=lambda: None if engine.num_requests else engine_metrics.show_idle(),
        labels=metrics_labels,
    )
    shutdown = ShutdownState()
    app = Application(
        path_prefix=root_path,
        title="distilgpt2-api",
        version=VERSION,
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_url=None,  # we serve the document and the pages ourselves, with our own assets
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
    )
    add_service_metrics(
        registry,
        info={
            "version": app.version,
            "model": model.shown_name,
            "served_names": ",".join(model.listed_names),
            "precision": model.precision,
        },
        states=[state.value for state in EngineState],
        read_state=lambda: engine.state.value,
        read_num_connections=app.count_connections,
    )
    http_metrics = HttpMetrics(registry, refusal_codes=REFUSAL_CODES)
    if usage is not None:
        UsageMetrics(
            registry,
            list_keys=lambda: usage.key_names,
            read_usage=usage.ledger.since_start,
            read_is_stored=lambda: usage.is_stored,
            read_num_unwritten=lambda: usage.ledger.num_unwritten,
        )
    batch_service = None
    if open_batch_service is not None:
        batch_service = open_batch_service(
            line_asker(app, engine, _no_account if usage is None else usage.open_account),
            model.check_name,
            BatchMetrics(registry, statuses=ENDED_STATUSES),
        )
    lifespan = build_lifespan(
        engine,
        shutdown,
        drain_s=drain_s,
        max_request_s=limits.timeout_s,
        traces=traces,
        batch_service=batch_service,
        usage=usage,
        chat_template=chat_template,
    )
    app.router.lifespan_context = lifespan if access.keys is None else access.keys.watched(lifespan)
    app.state.service = Service(
        version=app.version,
        engine=engine,
        model=model,
        limits=limits,
        uploads=Uploads(limits.max_uploads_bytes),
        metrics_page=metrics_page,
        access=access,
        draw_seed=draw_seed or _draw_seed,
        clock=clock,
        chat_template=chat_template,
        sampling_defaults=sampling_defaults,
        batch_service=batch_service,
        usage=usage,
    )
    app.router.routes.extend(build_routes(protocols))
    app.state.protocols = protocols
    app.add_exception_handler(Distilgpt2ApiError, protocols.answer_own_error)
    app.add_exception_handler(HTTPException, partial(answer_http_error, protocols))
    app.add_exception_handler(RequestValidationError, partial(_answer_validation_error, protocols))
    # The middleware added last is the outermost.
    app.add_middleware(
        Authentication,
        access=access,
        protocols=protocols,
        on_failure=http_metrics.count_auth_failure,
        usage=usage,
    )
    # Outside authentication: a browser's preflight has no key.
    app.add_middleware(CrossOrigin, origins=access.cors_origins, protocols=protocols)
    app.add_middleware(
        RequestMiddleware,
        metrics=http_metrics,
        access_log=access_log,
        protocols=protocols,
        shutdown=shutdown,
        # A page can't read a response without CORS headers.
        answer_failure=CrossOrigin(protocols.answer_failure, origins=access.cors_origins, protocols=protocols),
        traces=traces,
    )
    return app


class Application(FastAPI):
    """FastAPI with our own OpenAPI document, behind a proxy's path prefix, which the proxy may strip or keep."""

    def __init__(self, *, path_prefix: str, **options: Any) -> None:
        super().__init__(**options)
        self._path_prefix = path_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # FastAPI's own parameter for this is deprecated.
        if self._path_prefix:
            scope["root_path"] = self._path_prefix
        if scope["type"] == "http":
            strip_trailing_slash(scope)
        if scope["type"] == "lifespan":
            setattr(self.state, SERVER_CONTROL, scope.get("state", {}).get(SERVER_CONTROL))
        await super().__call__(scope, receive, send)

    def count_connections(self) -> int | None:
        """None if the server does not report it."""
        control: ServerControl | None = getattr(self.state, SERVER_CONTROL, None)
        return None if control is None else control.num_connections

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            service = self.state.service
            self.openapi_schema = build_openapi(
                self, self.state.protocols, service.limits, service.access, service.sampling_defaults
            )
        return self.openapi_schema


@cache
def build_routes(protocols: Protocols = PROTOCOLS) -> list[BaseRoute]:
    """All routes. They hold no state of an application, so applications share them."""
    routes = [route for protocol in protocols for route in protocol.routes]
    routes += [route for module in (probes, metrics_and_version, docs, playground) for route in module.router.routes]
    # It checks all other routes before it takes a path for a prompt.
    routes.sort(key=lambda route: isinstance(route, PromptRoute))
    for route in routes:
        if isinstance(route, Route):  # `$` accepts a line break at the path's end
            route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$").removesuffix(r"\Z") + r"\Z")
    return [*routes, *_heads(routes)]


def _no_account(_caller: str) -> None:
    """The account of a caller if usage is not counted."""


def _draw_seed() -> int:
    return random.getrandbits(63)


def _heads(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """HEAD for every GET route, hidden from the document, unless GET generates text.

    Copies, because FastAPI would analyse each endpoint again.
    """
    for route in routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()) and not isinstance(route, PromptRoute):
            head = copy(route)
            head.methods, head.include_in_schema, head.name = {"HEAD"}, False, f"{route.name}_head"
            yield head


async def _answer_validation_error(protocols: Protocols, request: Request, error: Exception) -> Response:
    """Exception handler for FastAPI's validation errors of queries and paths."""
    assert isinstance(error, RequestValidationError)
    details = dict(error.errors()[0])
    details["loc"] = details["loc"][1:]  # without `query` or `path`
    return protocols.error_response(describe_error(error_of(details)), request.scope)
