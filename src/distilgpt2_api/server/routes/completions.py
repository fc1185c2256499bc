"""`POST /v1/completions`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.server.body import read_json_object
from distilgpt2_api.server.completion_writer import CompletionShape, CompletionWriter
from distilgpt2_api.server.generation import Generation
from distilgpt2_api.server.prompts import encode_prompts
from distilgpt2_api.server.record import RequestRecord, record_of
from distilgpt2_api.server.responses import EventStream, WhenDone
from distilgpt2_api.server.sampling import check_limits, check_num_logprobs, sampling_params
from distilgpt2_api.server.schemas.answers import Completion
from distilgpt2_api.server.schemas.completions import CompletionRequest, parse_completion_request
from distilgpt2_api.server.schemas.errors import error_responses
from distilgpt2_api.server.schemas.sampling import StreamOptions
from distilgpt2_api.server.service import Service, ServiceDep
from distilgpt2_api.server.sse import error_event

DEFAULT_MAX_TOKENS = 16

STREAM_EXAMPLE = (
    'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"distilgpt2",'
    '"choices":[{"index":0,"text":" time","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
EVENT_STREAM = {
    "description": "The completion, or with `stream` one event for each piece of it: `data: ` and a `Completion` with "
    "the piece's choices. The last event is `data: [DONE]`, or `data: ` and an `ErrorResponse` where it failed midway.",
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}},
}


def add_routes(router: APIRouter) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: EVENT_STREAM}
    responses |= error_responses(400, 404, 408, 413, 415, 429, 500, 503, 504)
    router.add_api_route(
        "/v1/completions",
        create_completion,
        methods=["POST"],
        tags=["OpenAI"],
        summary="Complete prompts",
        response_model=Completion,
        responses=responses,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CompletionRequest"}}},
            }
        },
    )


async def create_completion(http: Request, service: ServiceDep) -> Response:
    """OpenAI's completions, and vLLM's extra parameters. A field that is not supported is refused by name."""
    body = await read_json_object(http, max_bytes=service.limits.max_body_bytes)
    request = parse_completion_request(body)
    record = record_of(http.scope)
    service.model.check_name(request.model)
    check_limits(request, service.limits)
    check_num_logprobs(request.logprobs, service.limits, param="logprobs")
    if request.user:
        record.user_hash = hashlib.sha256(request.user.encode()).hexdigest()[:16]
    generation, writer = await _prepare(request, service, record)

    async def whole() -> bytes:
        async with aclosing(generation.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                writer.collect(hand_over)
        return writer.body()

    async def events() -> AsyncGenerator[bytes]:
        async with aclosing(generation.hand_overs()) as hand_overs:
            async for hand_over in hand_overs:
                yield writer.events(hand_over)
        yield writer.last_events()

    if request.stream:
        return EventStream(events, abort=generation.abort, error_event=error_event)
    return WhenDone(whole, abort=generation.abort)


async def _prepare(
    request: CompletionRequest, service: Service, record: RequestRecord
) -> tuple[Generation, CompletionWriter]:
    """The work, not yet begun, and who writes it down."""
    tokenizer, config = service.engine.tokenizer, service.engine.model_config
    params = sampling_params(
        request,
        tokenizer=tokenizer,
        config=config,
        max_tokens=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        num_logprobs=request.logprobs,
        num_prompt_logprobs=request.logprobs if request.echo else None,
        grammar=None,
        seed=service.draw_seed(),
    )
    prompts = await encode_prompts(
        request.prompt, tokenizer=tokenizer, config=config, max_prompts=service.limits.max_prompts
    )
    record.num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    completion_id = f"cmpl-{uuid.uuid4().hex}"
    num_choices = request.n or 1
    requests = [
        GenerationRequest(
            request_id=f"{completion_id}-{index}",
            prompt_token_ids=prompt.token_ids,
            params=params,
            num_sequences=num_choices,
            is_streamed=bool(request.stream),
            deadline_s=min(request.timeout_s or service.limits.timeout_s, service.limits.timeout_s),
        )
        for index, prompt in enumerate(prompts)
    ]
    options = request.stream_options or StreamOptions(include_usage=None, continuous_usage_stats=None)
    writer = CompletionWriter(
        completion_id=completion_id,
        model=service.model.name if request.model is None else request.model,
        created=int(service.clock()),
        prompts=prompts,
        shape=CompletionShape(
            num_choices_per_prompt=num_choices,
            has_echo=bool(request.echo),
            has_logprobs=request.logprobs is not None,
            has_usage_chunk=bool(options.include_usage),
            has_usage_in_chunks=bool(options.continuous_usage_stats),
        ),
        tokenizer=tokenizer,
    )
    return Generation(service.engine, requests, record), writer
