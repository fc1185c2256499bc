"""OpenAPI fragments of request bodies and streams, which routes handle without FastAPI."""

from typing import Any

from pydantic import BaseModel

REF_TEMPLATE = "#/components/schemas/{model}"


def json_body(*models: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is JSON, one of the models."""
    refs = [reference(model) for model in models]
    content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    return {"requestBody": {"required": True, "content": content}}


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A reference to the model's schema in the document."""
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}


DONE = "[DONE]"


def event_stream(description: str, *models: type[BaseModel], has_done: bool = False, example: str) -> dict[str, Any]:
    """A streamed response for a route's `responses`: each event's data is JSON, one of the models.

    `itemSchema` (OpenAPI 3.2, which FastAPI also writes into its 3.1 documents) describes one event as a browser's
    EventSource parses it. `has_done`: the last event's data is the text `[DONE]`, which is not JSON.
    """
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [reference(model) for model in models]},
    }
    if has_done:
        data = {"anyOf": [data, {"type": "string", "const": DONE}]}
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {
        "description": description,
        "content": {"text/event-stream": {"itemSchema": event, "example": example}},
    }


def json_lines(description: str, *models: type[BaseModel], example: str) -> dict[str, Any]:
    """A streamed response for a route's `responses`: each line is JSON, one of the models."""
    line = {"anyOf": [reference(model) for model in models]}
    return {"description": description, "content": {"application/x-ndjson": {"itemSchema": line, "example": example}}}
