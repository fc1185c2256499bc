"""Event streams in the OpenAPI document: what the data of an event is."""

from __future__ import annotations

from typing import Any

DONE = "[DONE]"


def event_stream(description: str, *models: str, has_done: bool = False, example: str) -> dict[str, Any]:
    """A response of a route's `responses`: its events' data are of one of the models, by their names in the document.

    `itemSchema` (OpenAPI 3.2, which FastAPI writes into its 3.1 documents too) describes one event as a browser's
    EventSource parses it; `has_done`: or the text `[DONE]`, which is no JSON.
    """
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [{"$ref": f"#/components/schemas/{model}"} for model in models]},
    }
    if has_done:
        data = {"anyOf": [data, {"type": "string", "const": DONE}]}
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {
        "description": description,
        "content": {"text/event-stream": {"itemSchema": event, "example": example}},
    }
