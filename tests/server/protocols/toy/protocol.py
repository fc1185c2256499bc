"""A toy protocol with all that a protocol may have of its own: NDJSON streams, an error shape and a reserved tree."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import orjson
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.server.generation.answers import event_answer
from distilgpt2_api.server.generation.generation import Generation, PromptDeltas
from distilgpt2_api.server.generation.prompts import encode_texts
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.responses.stream_formats import NDJSON, dump_line
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import Body, parse_body
from distilgpt2_api.server.service import ServiceDep


class ToyError(BaseModel):
    failure: str


class ToyRequest(Body):
    text: str = Field(min_length=1)


class ToyModels(BaseModel):
    names: list[str]


def _body(answer: ErrorAnswer) -> bytes:
    return orjson.dumps({"failure": answer.message})


TOY_ERRORS = ErrorShape(
    name="Toy",
    model=ToyError,
    descriptions={401: "No key.", 418: "The request is wrong.", 503: "Not now."},
    status=lambda answer: 418 if answer.status == 400 else answer.status,
    body=_body,
    last_event=lambda answer: orjson.dumps({"broken": answer.message}) + b"\n",
)


router = checked_router("Toy")


@router.post("/toy/write", responses=TOY_ERRORS.responses(418, 503), openapi_extra=json_body(ToyRequest))
async def write_text(http: Request, service: ServiceDep) -> Response:
    request = parse_body(ToyRequest, await read_json_object(http, service.limits, service.uploads))
    engine = service.engine
    [prompt] = await encode_texts([request.text], encoder=service.text_encoder(http), config=engine.model_config)
    generation_request = GenerationRequest(
        request_id=f"toy-{uuid.uuid4().hex}",
        prompt_token_ids=prompt.token_ids,
        params=SamplingParams(max_tokens=50, temperature=0.0),
        num_sequences=1,
        is_streamed=True,
        deadline_s=service.limits.timeout_s,
    )
    source = Generation(engine, [generation_request], request_record(http.scope))
    return event_answer(source, ToyWriter(), errors=TOY_ERRORS, stream_format=NDJSON)


@router.get("/toy/models")
async def list_models(service: ServiceDep) -> ToyModels:
    return ToyModels(names=list(service.model.listed_names))


class ToyWriter:
    """One line for each piece of the text, and a last one."""

    def events(self, update: Iterable[PromptDeltas]) -> bytes:
        return b"".join(dump_line({"piece": delta.text}) + b"\n" for _, deltas in update for delta in deltas)

    def last_events(self) -> bytes:
        return dump_line({"end": True}) + b"\n"


TOY = Protocol(
    routes=router.routes,
    errors=TOY_ERRORS,
    stream_format=NDJSON,
    trees=frozenset({"toy"}),
    bodies=(ToyRequest,),
    examples={"/toy/write": {"A text": {"text": "Once"}}},
    prompt_keys=("text",),
    operations={"/toy/write": "toy"},
    missing={"/toy/paint": "this toy only writes: use /toy/write"},
)
