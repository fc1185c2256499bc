"""`POST /v1/score`."""

from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.server.generation.answers import json_answer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.score.plan import plan_score
from distilgpt2_api.server.protocols.score.schema import ScoreList, ScoreRequest
from distilgpt2_api.server.protocols.score.writer import ScoreWriter
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import ServiceDep

router = checked_router("Scores")


@router.post(
    "/v1/score",
    summary="Score texts",
    response_model=ScoreList,
    responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504),
    openapi_extra=json_body(ScoreRequest),
)
async def create_scores(http: Request, service: ServiceDep) -> Response:
    """The log-probabilities of texts, or of continuations after their contexts. Nothing is generated."""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_body(ScoreRequest, body)
    record = request_record(http.scope)
    service.model.check_name(request.model)
    record.note_user(request.user)
    plan = await plan_score(request, service, record, service.text_encoder(http))
    return json_answer(plan.run(service.engine, record), ScoreWriter(request, plan, service, record))


SCORE = Protocol(
    routes=router.routes,
    errors=OPENAI_ERRORS,
    bodies=(ScoreRequest,),
    examples={
        "/v1/score": {
            "Texts": {"input": ["The king was glad.", "Glad the was king."]},
            "Continuations": {
                "input": [
                    {"context": "The sky is", "continuation": " blue"},
                    {"context": "The sky is", "continuation": " cheese"},
                ],
                "token_logprobs": True,
            },
        },
    },
)
