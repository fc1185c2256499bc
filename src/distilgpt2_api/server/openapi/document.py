"""The OpenAPI document: FastAPI's, with the bodies that our routes read themselves."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.server.auth.access import Access, area_of
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import describe_error
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.routing.protocol import Protocols
from distilgpt2_api.server.schema.documented_route import described_routes
from distilgpt2_api.server.schema.openapi_fragments import REF_TEMPLATE, reference
from distilgpt2_api.server.schema.query import allows_any_query

LENGTHS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "num_predict", "n_predict")
"""The protocols' names of the maximum of completion tokens."""
VALIDATION_ERROR = "HTTPValidationError"
"""FastAPI's schema."""


def build_openapi(
    app: FastAPI, protocols: Protocols, limits: RequestLimits, access: Access, defaults: SamplingDefaults
) -> dict[str, Any]:
    """The complete document. Removes FastAPI's own 422, since its validation errors get 400 here."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=described_routes(app.routes),
        license_info=app.license_info,
    )
    for operation in _operations(document):
        if VALIDATION_ERROR in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
        for response in operation["responses"].values():
            _drop_false_json(response)
    _add_query_refusals(document, app, protocols)
    schemas = document["components"]["schemas"]
    bodies = [model for protocol in protocols for model in protocol.bodies]
    _, definitions = models_json_schema([(model, "validation") for model in bodies], ref_template=REF_TEMPLATE)
    schemas |= definitions["$defs"]
    for unused in (VALIDATION_ERROR, "ValidationError"):
        schemas.pop(unused, None)
    _apply_limits(document, limits)
    _apply_defaults(document, defaults)
    _add_security(document, protocols, access)
    for protocol in protocols:
        for path, examples in protocol.examples.items():
            content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return document


def _apply_limits(document: dict[str, Any], limits: RequestLimits) -> None:
    """Lower the schemas' bounds to the limits of the settings."""
    maxima = dict.fromkeys(("n", "best_of", "n_cmpl", "num_return_sequences"), limits.max_n)
    maxima |= dict.fromkeys(
        ("logprobs", "top_logprobs", "prompt_logprobs", "top_n_tokens", "n_probs"), limits.max_logprobs
    )
    for name, schema in _named_schemas(document):
        for choice in schema.get("anyOf", [schema]):
            if name in maxima and choice.get("type") == "integer":
                choice["maximum"] = min(maxima[name], choice.get("maximum", maxima[name]))
            if name in {"stop", "stop_sequences"} and choice.get("type") == "array":
                choice["maxItems"] = limits.max_stop_sequences


def _apply_defaults(document: dict[str, Any], defaults: SamplingDefaults) -> None:
    """Show the service's own defaults."""
    values = {**defaults.params, **(dict.fromkeys(LENGTHS, defaults.max_tokens) if defaults.max_tokens else {})}
    for name, schema in _named_schemas(document):
        if name in values and "default" in schema:
            schema["default"] = values[name]


def _named_schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parameters of queries, and fields of bodies."""
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            yield parameter["name"], parameter["schema"]
    for schema in document["components"]["schemas"].values():
        yield from schema.get("properties", {}).items()


def _add_query_refusals(document: dict[str, Any], app: FastAPI, protocols: Protocols) -> None:
    """Declare the error of a refused query for every route that checks its query."""
    refusal = describe_error(InvalidRequestError(""))
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema and not allows_any_query(route):
            for method in route.methods or ():
                responses = document["paths"][route.path_format][method.lower()]["responses"]
                errors = protocols.find(method, route.path).errors
                status = int(errors.status(refusal))
                responses.setdefault(str(status), _error_response(status, errors))


def _add_security(document: dict[str, Any], protocols: Protocols, access: Access) -> None:
    """Declare the key at each operation that needs one; /docs then shows its button."""
    for path, path_item in document["paths"].items():
        if not access.needs_key(area_of(path)):
            continue
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for method, operation in path_item.items():
            operation["security"] = [{"key": []}]
            operation["responses"]["401"] = _error_response(401, protocols.find(method.upper(), path).errors)


def _error_response(status: int, errors: ErrorShape) -> dict[str, Any]:
    content = {"application/json": {"schema": reference(errors.model)}}
    return {"description": errors.descriptions[status], "content": content}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path_item in document["paths"].values():
        yield from path_item.values()


def _drop_false_json(response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if content.get("application/json") == {"schema": {}}:
        del content["application/json"]
