"""`POST /v1/completions`."""

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import event_answer, json_answer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.protocols.openai.completions.plan import check_completion, plan_completion
from distilgpt2_api.server.protocols.openai.completions.schema import Completion, CompletionRequest
from distilgpt2_api.server.protocols.openai.completions.writer import CompletionWriter
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS, ErrorResponse
from distilgpt2_api.server.schema.openapi_fragments import event_stream, json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import ServiceDep

STREAM_EXAMPLE = (
    'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"distilgpt2",'
    '"choices":[{"index":0,"text":" time","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
EVENT_STREAM = event_stream(
    "The completion or, with `stream`, one event for each part of it: a `Completion` with its choices. The last "
    "event is `[DONE]`, or an `ErrorResponse` if the completion failed midway.",
    Completion,
    ErrorResponse,
    has_done=True,
    example=STREAM_EXAMPLE,
)


router = checked_router("OpenAI")


@router.post(
    "/v1/completions",
    summary="Complete prompts",
    response_model=Completion,
    responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504) | {200: EVENT_STREAM},
    openapi_extra=json_body(CompletionRequest),
)
async def create_completion(http: Request, service: ServiceDep) -> Response:
    """OpenAI's completions, with vLLM's extra parameters. Unsupported fields are refused by name."""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_body(CompletionRequest, body)
    record = request_record(http.scope)
    service.model.check_name(request.model)
    check_completion(request, service.limits)
    record.note_user(request.user)
    plan = await plan_completion(request, service, record, service.text_encoder(http))
    source = plan.run(service.engine, record)
    writer = CompletionWriter(request, plan, service, record)
    return event_answer(source, writer, errors=OPENAI_ERRORS) if request.stream else json_answer(source, writer)
