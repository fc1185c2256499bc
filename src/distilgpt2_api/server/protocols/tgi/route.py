"""Hugging Face's TGI: `POST /`, `POST /generate`, `POST /generate_stream` and `GET /info`."""

from __future__ import annotations

import uuid

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.server.generation.answers import write_events, write_whole
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.generation.prompts import encode_texts
from distilgpt2_api.server.generation.sampling_params import check_num_logprobs
from distilgpt2_api.server.http.body import read_json_object
from distilgpt2_api.server.http.request_record import record_of
from distilgpt2_api.server.protocols.tgi.errors import TGI_ERRORS, TgiErrorResponse
from distilgpt2_api.server.protocols.tgi.request import (
    check_tgi,
    parameters_of,
    read_grammar,
    shape_of,
    tgi_params,
    truncation_of,
)
from distilgpt2_api.server.protocols.tgi.schema import (
    TgiAnswer,
    TgiInfo,
    TgiRequest,
    TgiStreamEvent,
    TgiStreamRequest,
    TgiWholeRequest,
    parse_tgi_request,
)
from distilgpt2_api.server.protocols.tgi.writer import TgiWriter
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.service import Service, ServiceDep

STREAM_EXAMPLE = (
    'data:{"index":1,"token":{"id":640,"text":" time","logprob":-0.01,"special":false},'
    '"generated_text":" time","details":null}\n\n'
)
ONE_EACH = "One event for each token: a `TgiStreamEvent`. Where it fails midway, the last is a `TgiErrorResponse`."
EVENT_STREAM = event_stream(ONE_EACH, TgiStreamEvent, TgiErrorResponse, example=STREAM_EXAMPLE)
WHOLE_OR_STREAM = EVENT_STREAM | {"description": f"A list of the one answer; or with `stream`, events. {ONE_EACH}"}


def add_routes(router: APIRouter) -> None:
    errors = TGI_ERRORS.responses(408, 413, 415, 422, 424, 429, 500, 503, 504)
    router.add_api_route(
        "/",
        create_compatible,
        methods=["POST"],
        tags=["TGI"],
        summary="Generate text, whole or as a stream",
        response_model=list[TgiAnswer],
        responses=errors | {200: WHOLE_OR_STREAM},
        openapi_extra=json_body(TgiRequest),
    )
    router.add_api_route(
        "/generate",
        create_whole,
        methods=["POST"],
        tags=["TGI"],
        summary="Generate text",
        response_model=TgiAnswer,
        responses=errors,
        openapi_extra=json_body(TgiWholeRequest),
    )
    router.add_api_route(
        "/generate_stream",
        create_stream,
        methods=["POST"],
        tags=["TGI"],
        summary="Generate text, as a stream",
        responses=errors | {200: EVENT_STREAM},
        openapi_extra=json_body(TgiStreamRequest),
    )
    router.add_api_route(
        "/info",
        read_info,
        methods=["GET"],
        tags=["TGI"],
        summary="What is served, and its limits",
        responses=TGI_ERRORS.responses(503),
    )


async def create_compatible(http: Request, service: ServiceDep) -> Response:
    """What `huggingface_hub.InferenceClient.text_generation` posts to."""
    request = await _read(http, service, TgiRequest)
    return await _answer(http, service, request, is_streamed=bool(request.stream), is_list=True)


async def create_whole(http: Request, service: ServiceDep) -> Response:
    """Continue `inputs`."""
    request = await _read(http, service, TgiWholeRequest)
    return await _answer(http, service, request, is_streamed=False)


async def create_stream(http: Request, service: ServiceDep) -> Response:
    """Continue `inputs`, an event for each token."""
    request = await _read(http, service, TgiStreamRequest)
    return await _answer(http, service, request, is_streamed=True)


async def read_info(service: ServiceDep) -> TgiInfo:
    """As TGI's; null is what there is none of here."""
    num_positions = service.engine.model_config.num_positions
    limits = service.limits
    return TgiInfo(
        model_id=service.model.shown_name,
        model_sha=None,
        model_pipeline_tag="text-generation",
        max_concurrent_requests=limits.max_prompts,  # It is as many prompts as may wait.
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


async def _read(http: Request, service: Service, model: type[TgiRequest]) -> TgiRequest:
    return parse_tgi_request(model, await read_json_object(http, service.limits, service.uploads))


async def _answer(
    http: Request, service: Service, request: TgiRequest, *, is_streamed: bool, is_list: bool = False
) -> Response:
    work, writer = await _prepare(http, service, request, is_streamed=is_streamed, is_list=is_list)
    return write_events(work, writer, errors=TGI_ERRORS) if is_streamed else write_whole(work, writer)


async def _prepare(
    http: Request, service: Service, request: TgiRequest, *, is_streamed: bool, is_list: bool
) -> tuple[Generation, TgiWriter]:
    """The work, not yet begun, and who writes it down."""
    engine, limits = service.engine, service.limits
    parameters = parameters_of(request)
    check_tgi(parameters, limits, is_streamed=is_streamed)
    config, record = engine.model_config, record_of(http.scope)
    [prompt] = await encode_texts(
        [request.inputs],
        encoder=service.text_encoder(http),
        config=config,
        truncation=truncation_of(parameters, config),
        param="inputs",
    )
    record.num_prompt_tokens = len(prompt.token_ids)
    params = tgi_params(
        parameters,
        await read_grammar(parameters, engine.grammars),
        service=service,
        num_prompt_tokens=len(prompt.token_ids),
        is_streamed=is_streamed,
    )
    generation_request = GenerationRequest(
        request_id=f"tgi-{uuid.uuid4().hex}",
        prompt_token_ids=prompt.token_ids,
        params=params,
        num_sequences=parameters.best_of or 1,
        is_streamed=is_streamed,
        deadline_s=limits.timeout_s,
    )
    if not is_streamed and params.num_logprobs is not None:
        check_num_logprobs([generation_request], config, param="parameters.top_n_tokens")
    writer = TgiWriter(
        prompt_token_ids=prompt.token_ids,
        shape=shape_of(parameters, params, inputs=request.inputs, is_list=is_list),
        tokenizer=engine.tokenizer,
        eos_token_ids=config.eos_token_ids,
    )
    return Generation(engine, [generation_request], record), writer
