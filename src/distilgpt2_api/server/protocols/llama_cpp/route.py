"""llama.cpp's `POST /completion`, and the protocol."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import event_answer, json_answer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.llama_cpp import properties
from distilgpt2_api.server.protocols.llama_cpp.errors import LLAMA_CPP_ERRORS, LlamaErrorResponse
from distilgpt2_api.server.protocols.llama_cpp.plan import check_completion, plan_completion
from distilgpt2_api.server.protocols.llama_cpp.schema import LlamaChunk, LlamaCompletion, LlamaCompletionRequest
from distilgpt2_api.server.protocols.llama_cpp.writer import LlamaWriter
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import ServiceDep

STREAM_EXAMPLE = (
    'data: {"index":0,"content":" time","tokens":[640],"stop":false,"id_slot":-1,"tokens_predicted":1,'
    '"tokens_evaluated":3}\n\n'
)
EVENT_STREAM = event_stream(
    "A completion, or a list of them if there are several, or with `stream`, events: a `LlamaChunk` for each piece, "
    "and a `LlamaCompletion` at each completion's end. If one fails midway, the last event is a `LlamaErrorResponse`.",
    LlamaChunk,
    LlamaCompletion,
    LlamaErrorResponse,
    example=STREAM_EXAMPLE,
)

router = checked_router("llama.cpp")


@router.post(
    "/completion",
    summary="Complete prompts, whole or as a stream",
    response_model=LlamaCompletion | list[LlamaCompletion],
    responses=LLAMA_CPP_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504) | {200: EVENT_STREAM},
    openapi_extra=json_body(LlamaCompletionRequest),
)
async def create_completion(http: Request, service: ServiceDep) -> Response:
    """llama.cpp's own completions. (`/v1/completions` is OpenAI's, as in llama.cpp.)"""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_body(LlamaCompletionRequest, body)
    record = request_record(http.scope)
    service.model.check_name(request.model)
    check_completion(request, service.limits)
    plan = await plan_completion(request, service, record, service.text_encoder(http))
    source = plan.run(service.engine, record)
    writer = LlamaWriter(request, plan, service, record)
    return event_answer(source, writer, errors=LLAMA_CPP_ERRORS) if request.stream else json_answer(source, writer)


EXAMPLES: dict[str, Any] = {
    "A completion": {"prompt": "Once upon a time there was a", "n_predict": 40},
    "A stream": {"prompt": "Once upon a time there was a", "n_predict": 40, "stream": True, "timings_per_token": True},
}
NO_EMBEDDINGS = "this model makes no embeddings: use /v1/score for the likelihood of texts, or another service"
MISSING = {
    **dict.fromkeys(("/embedding", "/embeddings", "/rerank", "/reranking"), NO_EMBEDDINGS),
    "/infill": "this model can't fill a gap: send the text before it to /completion",
    "/lora-adapters": "this service has no adapters: merge them into the model, and serve that",
    "/apply-template": "send the messages to /v1/chat/completions, or to /tokenize for their token ids",
}

LLAMA_CPP = Protocol(
    routes=[*router.routes, *properties.router.routes],
    errors=LLAMA_CPP_ERRORS,
    paths=frozenset({"/completion", "/props", "/slots", *MISSING}),
    bodies=(LlamaCompletionRequest, LlamaChunk, LlamaCompletion),
    examples={"/completion": EXAMPLES},
    prompt_keys=("prompt",),
    missing=MISSING,
)
