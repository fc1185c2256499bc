"""Hugging Face's TGI: `POST /`, `POST /generate`, `POST /generate_stream` and `GET /info`."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import event_answer, json_answer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.tgi.errors import TGI_ERRORS, TgiErrorResponse
from distilgpt2_api.server.protocols.tgi.plan import check_tgi, plan_tgi
from distilgpt2_api.server.protocols.tgi.schema import (
    TgiAnswer,
    TgiInfo,
    TgiRequest,
    TgiStreamEvent,
    TgiStreamRequest,
    TgiWholeRequest,
)
from distilgpt2_api.server.protocols.tgi.writer import TgiWriter, timing_headers
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import Service, ServiceDep

STREAM_EXAMPLE = (
    'data:{"index":1,"token":{"id":640,"text":" time","logprob":-0.01,"special":false},'
    '"generated_text":" time","details":null}\n\n'
)
ONE_EACH = "One event per token: a `TgiStreamEvent`. If the generation fails midway, the last is a `TgiErrorResponse`."
EVENT_STREAM = event_stream(ONE_EACH, TgiStreamEvent, TgiErrorResponse, example=STREAM_EXAMPLE)
WHOLE_OR_STREAM = EVENT_STREAM | {"description": f"A list with one answer or, with `stream`, events. {ONE_EACH}"}


ERRORS = TGI_ERRORS.responses(408, 413, 415, 422, 424, 429, 500, 503, 504)

router = checked_router("TGI")


@router.post(
    "/",
    summary="Generate text, whole or as a stream",
    response_model=list[TgiAnswer],
    responses=ERRORS | {200: WHOLE_OR_STREAM},
    openapi_extra=json_body(TgiRequest),
)
async def create_compatible(http: Request, service: ServiceDep) -> Response:
    """The route that `huggingface_hub.InferenceClient.text_generation` uses."""
    return await _answer(http, service, TgiRequest, is_list=True)


@router.post(
    "/generate",
    summary="Generate text",
    response_model=TgiAnswer,
    responses=ERRORS,
    openapi_extra=json_body(TgiWholeRequest),
)
async def create_whole(http: Request, service: ServiceDep) -> Response:
    """Continue `inputs`."""
    return await _answer(http, service, TgiWholeRequest)


@router.post(
    "/generate_stream",
    summary="Generate text, as a stream",
    responses=ERRORS | {200: EVENT_STREAM},
    openapi_extra=json_body(TgiStreamRequest),
)
async def create_stream(http: Request, service: ServiceDep) -> Response:
    """Continue `inputs`, with one event per token."""
    return await _answer(http, service, TgiStreamRequest)


@router.get("/info", summary="Describe the model and its limits", responses=TGI_ERRORS.responses(503))
async def read_info(service: ServiceDep) -> TgiInfo:
    """TGI's `Info`. Null: this service has no such value."""
    num_positions = service.engine.model_config.num_positions
    limits = service.limits
    return TgiInfo(
        model_id=service.model.shown_name,
        model_sha=None,
        model_pipeline_tag="text-generation",
        max_concurrent_requests=limits.max_prompts,  # as many prompts as the queue holds
        max_best_of=limits.max_n,
        max_stop_sequences=limits.max_stop_sequences,
        max_input_tokens=num_positions - 1,
        max_total_tokens=num_positions,
        validation_workers=1,
        max_client_batch_size=limits.max_prompts,
        router="distilgpt2-api",
        version=service.version,
        sha=None,
        docker_label=None,
    )


async def _answer(http: Request, service: Service, model: type[TgiRequest], *, is_list: bool = False) -> Response:
    request = parse_body(model, await read_json_object(http, service.limits, service.uploads))
    record = request_record(http.scope)
    check_tgi(request, service.limits, service.sampling_defaults)
    plan = await plan_tgi(request, service, record, service.text_encoder(http))
    source = plan.run(service.engine, record)
    writer = TgiWriter(request, plan, service, is_list=is_list)
    if request.is_streamed:
        return event_answer(source, writer, errors=TGI_ERRORS)
    return json_answer(source, writer, make_headers=partial(timing_headers, record))


PARAMETERS: dict[str, Any] = {"max_new_tokens": 40, "do_sample": True, "temperature": 0.8, "details": True}
EXAMPLE = {"A text": {"inputs": "Once upon a time there was a", "parameters": PARAMETERS}}

TGI = Protocol(
    routes=router.routes,
    errors=TGI_ERRORS,
    paths=frozenset({"POST /", "/generate", "/generate_stream", "/info"}),
    bodies=(TgiRequest, TgiWholeRequest, TgiStreamRequest, TgiStreamEvent),
    examples={"/": EXAMPLE, "/generate": EXAMPLE, "/generate_stream": EXAMPLE},
    prompt_keys=("inputs",),
)
