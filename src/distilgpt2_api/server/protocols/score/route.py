"""`POST /v1/score`."""

from __future__ import annotations

import uuid

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.engine.scoring import scoring_request
from distilgpt2_api.server.generation.answers import write_whole
from distilgpt2_api.server.generation.generation import Generation
from distilgpt2_api.server.http.body import read_json_object
from distilgpt2_api.server.http.request_record import record_of
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.score.schema import ScoreList, ScoreRequest
from distilgpt2_api.server.protocols.score.scoring import ScoreWriter, encode_input
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.validation import parse_body
from distilgpt2_api.server.service import ServiceDep


def add_routes(router: APIRouter) -> None:
    router.add_api_route(
        "/v1/score",
        create_scores,
        methods=["POST"],
        tags=["Scores"],
        summary="Score texts",
        response_model=ScoreList,
        responses=OPENAI_ERRORS.responses(400, 404, 408, 413, 415, 429, 500, 503, 504),
        openapi_extra=json_body(ScoreRequest),
    )


async def create_scores(http: Request, service: ServiceDep) -> Response:
    """How likely the model finds texts, or continuations after their contexts. Nothing is generated."""
    body = await read_json_object(http, service.limits, service.uploads)
    request = parse_body(ScoreRequest, body)
    record = record_of(http.scope)
    service.model.check_name(request.model)
    record.note_user(request.user)
    tokenizer = service.engine.tokenizer
    prompts = await encode_input(
        request.input,
        encoder=service.text_encoder(http),
        config=service.engine.model_config,
        max_items=service.limits.max_prompts,
    )
    record.num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    score_id = f"score-{uuid.uuid4().hex}"
    requests = [
        scoring_request(
            prompt,
            request_id=f"{score_id}-{index}",
            priority=request.priority or 0,
            deadline_s=service.limits.deadline_s(request.timeout_s),
        )
        for index, prompt in enumerate(prompts)
    ]
    generation = Generation(service.engine, requests, record)
    writer = ScoreWriter(
        model=service.model.shown_name,
        prompts=prompts,
        tokenizer=tokenizer,
        has_tokens=bool(request.token_logprobs),
    )
    return write_whole(generation, writer)
