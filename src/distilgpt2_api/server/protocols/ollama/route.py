"""Ollama's `POST /api/generate` and `POST /api/chat`, and the protocol."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import event_answer, json_answer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.responses.stream_formats import NDJSON
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.ollama import models
from distilgpt2_api.server.protocols.ollama.errors import OLLAMA_ERRORS, OllamaErrorResponse
from distilgpt2_api.server.protocols.ollama.plan import check_ollama, plan_ollama
from distilgpt2_api.server.protocols.ollama.schema import (
    OllamaChat,
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaGeneration,
)
from distilgpt2_api.server.protocols.ollama.writer import OllamaWriter, load_answer
from distilgpt2_api.server.schema.openapi_fragments import json_body, json_lines
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import Service, ServiceDep

STREAM_EXAMPLE = (
    '{"model":"distilgpt2","created_at":"2026-01-31T12:00:00.500000Z","response":" time","done":false}\n'
    '{"model":"distilgpt2","created_at":"2026-01-31T12:00:00.600000Z","response":"","done":true,"done_reason":"length",'
    '"total_duration":9000000,"load_duration":1000000,"prompt_eval_count":3,"prompt_eval_duration":5000000,'
    '"eval_count":1,"eval_duration":3000000,"context":[7454,2402,257,640]}\n'
)
CHAT_STREAM_EXAMPLE = (
    '{"model":"distilgpt2","created_at":"2026-01-31T12:00:00.500000Z",'
    '"message":{"role":"assistant","content":" time"},"done":false}\n'
)
LINES = (
    "One line for each piece of the text, and a last one with the durations; with `stream` false, one object. If the "
    "generation fails midway, the last line is an `OllamaErrorResponse`."
)
ERRORS = OLLAMA_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504)

router = checked_router("Ollama")


@router.post(
    "/api/generate",
    summary="Generate text, as a stream or whole",
    response_model=OllamaGeneration,
    responses=ERRORS | {200: json_lines(LINES, OllamaGeneration, OllamaErrorResponse, example=STREAM_EXAMPLE)},
    openapi_extra=json_body(OllamaGenerateRequest),
)
async def generate(http: Request, service: ServiceDep) -> Response:
    """Continue `prompt`. A model with a chat template answers it, unless `raw` is set."""
    request = parse_body(OllamaGenerateRequest, await read_json_object(http, service.limits, service.uploads))
    return await _answer(request, http, service, is_empty=not request.prompt)


@router.post(
    "/api/chat",
    summary="Answer in a chat, as a stream or whole",
    response_model=OllamaChat,
    responses=ERRORS | {200: json_lines(LINES, OllamaChat, OllamaErrorResponse, example=CHAT_STREAM_EXAMPLE)},
    openapi_extra=json_body(OllamaChatRequest),
)
async def chat(http: Request, service: ServiceDep) -> Response:
    """Ollama's chat, for models with a chat template. Without one, the answer is a 400 error."""
    request = parse_body(OllamaChatRequest, await read_json_object(http, service.limits, service.uploads))
    return await _answer(request, http, service, is_empty=request.messages in (None, []))


async def _answer(
    request: OllamaGenerateRequest | OllamaChatRequest, http: Request, service: Service, *, is_empty: bool
) -> Response:
    check_ollama(request, service)
    if is_empty:
        return Response(load_answer(request, service), media_type="application/json")
    record = request_record(http.scope)
    plan = await plan_ollama(request, service, record, service.text_encoder(http))
    source = plan.run(service.engine, record)
    writer = OllamaWriter(request, plan, service)
    if not request.is_streamed:
        return json_answer(source, writer)
    return event_answer(source, writer, errors=OLLAMA_ERRORS, stream_format=NDJSON)


SHORT: dict[str, Any] = {"options": {"num_predict": 40}}
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
OWN_MODEL = "the operator chooses the model (distilgpt2-api pull, distilgpt2-api serve --model)"

OLLAMA = Protocol(
    routes=[*router.routes, *models.router.routes],
    errors=OLLAMA_ERRORS,
    stream_format=NDJSON,
    trees=frozenset({"api"}),
    bodies=(OllamaGenerateRequest, OllamaGeneration, OllamaChatRequest, OllamaChat, models.OllamaShowRequest),
    examples={
        "/api/generate": {
            "A stream": {"prompt": "Once upon a time there was a", **SHORT},
            "A whole": {"prompt": "Once upon a time there was a", "stream": False, **SHORT},
        },
        "/api/chat": {"A stream": {"messages": MESSAGES, **SHORT}},
        "/api/show": {"The served model": {}},
    },
    prompt_keys=("prompt", "messages"),
    operations={"/api/chat": "chat"},
    missing={
        **dict.fromkeys(
            ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs"),
            f"models can't be changed over HTTP: {OWN_MODEL}",
        ),
        **dict.fromkeys(
            ("/api/embed", "/api/embeddings"),
            "this model makes no embeddings: use /v1/score for the likelihood of texts, or another service",
        ),
    },
)
