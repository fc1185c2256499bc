"""How the clients of one protocol read an error."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pydantic import BaseModel

from distilgpt2_api.server.http.errors import ErrorAnswer

DESCRIPTIONS: Mapping[int, str] = {
    400: "The request is wrong: the message names the parameter.",
    401: "No valid API key.",
    404: "Unknown model or URL.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The body is not declared as JSON.",
    429: "The queue is full, or a limit is reached. `Retry-After` tells when to retry.",
    500: "The completion failed.",
    503: "The model is loading, or the service is shutting down. `Retry-After` tells when to retry.",
    504: "The request did not finish before its deadline.",
}
"""By status, for protocols that have our statuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorShape:
    """The status and body of an error in one protocol, and its last event in a stream that has begun."""

    name: str
    """The protocol's name."""
    model: type[BaseModel]
    """The body's schema."""
    descriptions: Mapping[int, str]
    """Descriptions by status, for the OpenAPI document."""
    body: Callable[[ErrorAnswer], bytes]
    last_event: Callable[[ErrorAnswer], bytes]
    status: Callable[[ErrorAnswer], int] = attrgetter("status")

    def responses(self, *statuses: int) -> dict[int | str, dict[str, Any]]:
        """The `responses` of a route that can answer with these statuses."""
        return {status: {"model": self.model, "description": self.descriptions[status]} for status in statuses}
