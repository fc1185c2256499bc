"""`POST /v1/chat/completions`."""

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import event_answer, json_answer
from distilgpt2_api.server.generation.chat_prompt import require_template
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.protocols.openai.chat.plan import check_chat, plan_chat
from distilgpt2_api.server.protocols.openai.chat.schema import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    parse_chat_request,
)
from distilgpt2_api.server.protocols.openai.chat.writer import ChatWriter
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS, ErrorResponse
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import ServiceDep

STREAM_EXAMPLE = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"distilgpt2",'
    '"system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" time"},"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
EVENT_STREAM = event_stream(
    "The answer or, with `stream`, events: a `ChatCompletionChunk` each. The last event is `[DONE]`, or an "
    "`ErrorResponse` if the answer failed midway.",
    ChatCompletionChunk,
    ErrorResponse,
    has_done=True,
    example=STREAM_EXAMPLE,
)


router = checked_router("OpenAI")


@router.post(
    "/v1/chat/completions",
    summary="Answer in a chat",
    response_model=ChatCompletion,
    responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504) | {200: EVENT_STREAM},
    openapi_extra=json_body(ChatCompletionRequest),
)
async def create_chat_completion(http: Request, service: ServiceDep) -> Response:
    """OpenAI's chat completions, for models with a chat template. Without one, the answer is a 400 error."""
    body = await read_json_object(http, service.limits, service.uploads)
    template = require_template(service.chat_template)
    request = parse_chat_request(body)
    record = request_record(http.scope)
    service.model.check_name(request.model)
    check_chat(request, service.limits)
    record.note_user(request.user)
    plan = await plan_chat(request, template, service, record, service.text_encoder(http))
    source = plan.run(service.engine, record)
    writer = ChatWriter(request, plan, service, record)
    return event_answer(source, writer, errors=OPENAI_ERRORS) if request.stream else json_answer(source, writer)
