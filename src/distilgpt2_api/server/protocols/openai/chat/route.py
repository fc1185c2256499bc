"""`POST /v1/chat/completions`."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.validation import check_context_length
from distilgpt2_api.server.generation.answers import write_events, write_whole
from distilgpt2_api.server.generation.chat_prompt import encode_chat, require_template
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.generation.sampling_params import (
    check_at_most,
    check_limits,
    check_num_logprobs,
    read_grammar,
    sampling_params,
)
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.body import read_json_object
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.request_record import RequestRecord, record_of
from distilgpt2_api.server.protocols.openai.chat.schema import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    parse_chat_request,
)
from distilgpt2_api.server.protocols.openai.chat.writer import ChatShape, ChatWriter
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS, ErrorResponse
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.service import Service, ServiceDep
from distilgpt2_api.text.chat_template import ChatTemplate

STREAM_EXAMPLE = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"distilgpt2",'
    '"system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" time"},"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
EVENT_STREAM = event_stream(
    "The answer, or with `stream` events: a `ChatCompletionChunk` each. The last is `[DONE]`, or an `ErrorResponse` "
    "where it failed midway.",
    ChatCompletionChunk,
    ErrorResponse,
    has_done=True,
    example=STREAM_EXAMPLE,
)


def add_routes(router: APIRouter) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: EVENT_STREAM}
    responses |= OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504)
    router.add_api_route(
        "/v1/chat/completions",
        create_chat_completion,
        methods=["POST"],
        tags=["OpenAI"],
        summary="Answer in a chat",
        response_model=ChatCompletion,
        responses=responses,
        openapi_extra=json_body(ChatCompletionRequest),
    )


async def create_chat_completion(http: Request, service: ServiceDep) -> Response:
    """OpenAI's chat completions, for models with a chat template; without one the answer is 400 and says what to do."""
    body = await read_json_object(http, service.limits, service.uploads)
    template = require_template(service.chat_template)
    request = parse_chat_request(body)
    record = record_of(http.scope)
    service.model.check_name(request.model)
    _check(request, service.limits)
    record.note_user(request.user)
    work, writer = await _prepare(request, template, service, record, service.text_encoder(http))
    return write_events(work, writer, errors=OPENAI_ERRORS) if request.stream else write_whole(work, writer)


def _check(request: ChatCompletionRequest, limits: RequestLimits) -> None:
    """What each field may be, but not all together, or not here. Raises InvalidRequestError."""
    check_limits(request, limits)
    check_at_most(request.top_logprobs, limits.max_logprobs, param="top_logprobs")
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError("top_logprobs: only with logprobs", param="top_logprobs")


async def _prepare(
    request: ChatCompletionRequest,
    template: ChatTemplate,
    service: Service,
    record: RequestRecord,
    encoder: TextEncoder,
) -> tuple[Generation, ChatWriter]:
    """The work, not yet begun, and who writes it down."""
    tokenizer, config = service.engine.tokenizer, service.engine.model_config
    prompt = await encode_chat(request, template=template, encoder=encoder, config=config)
    num_prompt_tokens = record.num_prompt_tokens = len(prompt.token_ids)
    max_tokens = request.max_completion_tokens
    if max_tokens is None:
        max_tokens = config.num_positions - num_prompt_tokens
    param = "max_completion_tokens" if request.max_tokens is None else "max_tokens"
    check_context_length(num_prompt_tokens, max_tokens, config, param=param, prompt_param="messages")
    num_logprobs = (request.top_logprobs or 0) if request.logprobs else None
    grammar, _ = await read_grammar(request, service.engine.grammars) or (None, "")
    chat_id = f"chatcmpl-{uuid.uuid4().hex}"
    generation_request = GenerationRequest(
        request_id=chat_id,
        prompt_token_ids=prompt.token_ids,
        params=sampling_params(
            request,
            tokenizer=tokenizer,
            config=config,
            max_tokens=max_tokens,
            num_logprobs=num_logprobs,
            num_prompt_logprobs=None,
            grammar=grammar,
            draw_seed=service.draw_seed,
        ),
        num_sequences=request.n or 1,
        is_streamed=bool(request.stream),
        priority=request.priority or 0,
        deadline_s=service.limits.deadline_s(request.timeout_s),
    )
    if num_logprobs is not None and not request.stream:
        check_num_logprobs([generation_request], config, param="top_logprobs")
    writer = ChatWriter(
        chat_id=chat_id,
        model=service.model.shown_name,
        system_fingerprint=service.system_fingerprint,
        created=int(service.clock()),
        num_prompt_tokens=num_prompt_tokens,
        shape=ChatShape(
            num_choices=request.n or 1,
            num_logprobs=num_logprobs,
            has_usage_chunk=request.has_usage_chunk,
            has_usage_in_chunks=request.has_usage_in_chunks,
        ),
        tokenizer=tokenizer,
    )
    return Generation(service.engine, [generation_request], record), writer
