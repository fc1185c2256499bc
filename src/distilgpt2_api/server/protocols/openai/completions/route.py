"""`POST /v1/completions`."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import write_events, write_whole
from distilgpt2_api.server.generation.beam_search import BeamGeneration
from distilgpt2_api.server.generation.best_of import BestOf
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.generation.prompts import encode_prompts
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.body import read_json_object
from distilgpt2_api.server.http.request_record import RequestRecord, record_of
from distilgpt2_api.server.protocols.openai.completions.request import (
    beam_options_of,
    check_answer_size,
    check_completion,
    completion_params,
    generation_requests,
    num_sequences,
    shape_of,
    truncation_of,
)
from distilgpt2_api.server.protocols.openai.completions.schema import (
    Completion,
    CompletionRequest,
    parse_completion_request,
)
from distilgpt2_api.server.protocols.openai.completions.writer import CompletionWriter
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS, ErrorResponse
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.service import Service, ServiceDep

STREAM_EXAMPLE = (
    'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"distilgpt2",'
    '"choices":[{"index":0,"text":" time","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
EVENT_STREAM = event_stream(
    "The completion, or with `stream` one event for each piece of it: a `Completion` with its choices. The last "
    "event is `[DONE]`, or an `ErrorResponse` where it failed midway.",
    Completion,
    ErrorResponse,
    has_done=True,
    example=STREAM_EXAMPLE,
)


def add_routes(router: APIRouter) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: EVENT_STREAM}
    responses |= OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504)
    router.add_api_route(
        "/v1/completions",
        create_completion,
        methods=["POST"],
        tags=["OpenAI"],
        summary="Complete prompts",
        response_model=Completion,
        responses=responses,
        openapi_extra=json_body(CompletionRequest),
    )


async def create_completion(http: Request, service: ServiceDep) -> Response:
    """OpenAI's completions, and vLLM's extra parameters. A field that is not supported is refused by name."""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_completion_request(body)
    record = record_of(http.scope)
    service.model.check_name(request.model)
    check_completion(request, service.limits)
    record.note_user(request.user)
    work, writer = await _prepare(request, service, record, service.text_encoder(http))
    return write_events(work, writer, errors=OPENAI_ERRORS) if request.stream else write_whole(work, writer)


async def _prepare(
    request: CompletionRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> tuple[Generation | BestOf | BeamGeneration, CompletionWriter]:
    """The work, not yet begun, and who writes it down."""
    tokenizer, config = service.engine.tokenizer, service.engine.model_config
    params = await completion_params(request, service)
    prompts = await encode_prompts(
        request.prompt,
        encoder=encoder,
        config=config,
        max_prompts=service.limits.max_prompts,
        truncation=truncation_of(request, config),
        add_special_tokens=request.add_special_tokens is not False,
    )
    record.num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    writer = CompletionWriter(
        completion_id=f"cmpl-{request.request_id or uuid.uuid4().hex}",
        model=service.model.shown_name,
        system_fingerprint=service.system_fingerprint,
        created=int(service.clock()),
        prompts=prompts,
        shape=shape_of(request),
        tokenizer=tokenizer,
    )
    requests = generation_requests(request, prompts, params, service.limits)
    check_answer_size(request, requests, config)
    if (options := beam_options_of(request)) is not None:
        return BeamGeneration(service.engine, requests, options, record), writer
    generation = Generation(service.engine, requests, record)
    num_drawn, num_choices = num_sequences(request), request.n or 1
    if num_drawn == num_choices:
        return generation, writer
    best_of = BestOf(generation, num_sequences=num_drawn, num_kept=num_choices, on_drop=writer.count_dropped)
    return best_of, writer
