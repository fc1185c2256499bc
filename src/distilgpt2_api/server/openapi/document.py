"""The OpenAPI document: FastAPI's, and the bodies that we read ourselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from distilgpt2_api.server.auth.access import Access, area_of
from distilgpt2_api.server.http.errors import is_tgi
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.openapi.examples import REQUESTS
from distilgpt2_api.server.protocols.openai.batches.batches_schema import BatchRequest
from distilgpt2_api.server.protocols.openai.chat.schema import ChatCompletionChunk, ChatCompletionRequest
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.protocols.openai.errors import error_responses
from distilgpt2_api.server.protocols.score.schema import ScoreRequest
from distilgpt2_api.server.protocols.tgi.schema import (
    TgiRequest,
    TgiStreamEvent,
    TgiStreamRequest,
    TgiWholeRequest,
    tgi_error_responses,
)
from distilgpt2_api.server.protocols.vllm.tokens_schema import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest
from distilgpt2_api.server.schema.openapi_fragments import REF_TEMPLATE, reference
from distilgpt2_api.server.schema.query import allows_any_query

BODIES: tuple[type[BaseModel], ...] = (
    CompletionRequest,
    ChatCompletionRequest,
    ChatCompletionChunk,
    ScoreRequest,
    BatchRequest,
    TokenizeRequest,
    TokenizeChatRequest,
    DetokenizeRequest,
    TgiRequest,
    TgiWholeRequest,
    TgiStreamRequest,
    TgiStreamEvent,
)
VALIDATION_ERROR = "HTTPValidationError"
"""FastAPI's schema."""


def build_openapi(app: FastAPI, limits: RequestLimits, access: Access) -> dict[str, Any]:
    """The whole document. FastAPI's own 422 is taken out: what it finds wrong is answered with 400.

    It speaks of keys where keys are needed.
    """
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info=app.license_info,
    )
    for operation in _operations(document):
        if VALIDATION_ERROR in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
        for response in operation["responses"].values():
            _drop_false_json(response)
    _add_query_refusals(document, app)
    schemas = document["components"]["schemas"]
    _, definitions = models_json_schema([(model, "validation") for model in BODIES], ref_template=REF_TEMPLATE)
    schemas |= definitions["$defs"]
    for unused in (VALIDATION_ERROR, "ValidationError"):
        schemas.pop(unused, None)
    _bound(document, limits)
    _lock(document, access)
    for path, requests in REQUESTS.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": value} for name, value in requests.items()}
    return document


def _bound(document: dict[str, Any], limits: RequestLimits) -> None:
    """Write the settings' limits where the protocols allow more."""
    maxima = dict.fromkeys(("n", "best_of", "num_return_sequences"), limits.max_n)
    maxima |= dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs", "top_n_tokens"), limits.max_logprobs)
    named = [
        (parameter["name"], parameter["schema"])
        for operation in _operations(document)
        for parameter in operation.get("parameters", ())
    ]
    for schema in document["components"]["schemas"].values():
        named += schema.get("properties", {}).items()
    for name, schema in named:
        for choice in schema.get("anyOf", [schema]):
            if name in maxima and choice.get("type") == "integer":
                choice["maximum"] = min(maxima[name], choice.get("maximum", maxima[name]))
            if name in {"stop", "stop_sequences"} and choice.get("type") == "array":
                choice["maxItems"] = limits.max_stop_sequences


def _add_query_refusals(document: dict[str, Any], app: FastAPI) -> None:
    """Every route that checks its query may refuse it, also one that refuses nothing else."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema and not allows_any_query(route):
            for method in route.methods or ():
                responses = document["paths"][route.path_format][method.lower()]["responses"]
                in_tgi = is_tgi(method, route.path)
                status = 422 if in_tgi else 400
                responses.setdefault(str(status), _error_response(status, in_tgi=in_tgi))


def _lock(document: dict[str, Any], access: Access) -> None:
    """Write at each operation that needs a key that it does; /docs then has a button for it."""
    for path, path_item in document["paths"].items():
        if not access.needs_key(area_of(path)):
            continue
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for method, operation in path_item.items():
            operation["security"] = [{"key": []}]
            operation["responses"]["401"] = _error_response(401, in_tgi=is_tgi(method.upper(), path))


def _error_response(status: int, *, in_tgi: bool) -> dict[str, Any]:
    declared = (tgi_error_responses(status) if in_tgi else error_responses(status))[status]
    content = {"application/json": {"schema": reference(declared["model"])}}
    return {"description": declared["description"], "content": content}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path_item in document["paths"].values():
        yield from path_item.values()


def _drop_false_json(response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if content.get("application/json") == {"schema": {}}:
        del content["application/json"]
