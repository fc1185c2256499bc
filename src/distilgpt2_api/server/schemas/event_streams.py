"""Event streams in the OpenAPI document: what the data of an event is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from distilgpt2_api.server.schemas.bodies import reference

DONE = "[DONE]"


def event_stream(description: str, *models: type[BaseModel], has_done: bool = False, example: str) -> dict[str, Any]:
    """A response of a route's `responses`: its events' data are of one of the models.

    `itemSchema` (OpenAPI 3.2, which FastAPI writes into its 3.1 documents too) describes one event as a browser's
    EventSource parses it; `has_done`: or the text `[DONE]`, which is no JSON.
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
