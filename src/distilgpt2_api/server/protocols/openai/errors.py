"""Error bodies, for the OpenAPI document; `server/http/errors.py` writes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's `ErrorResponse`: every status of 400 and above has it."""

    error: Error


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`."""
    return {status: {"model": ErrorResponse, "description": DESCRIPTIONS[status]} for status in statuses}


DESCRIPTIONS = {
    400: "The request is wrong: `param` names the parameter.",
    401: "No valid API key.",
    404: "No such model, file or batch, or no such URL; or a setting would have to switch it on.",
    408: "The body did not arrive in time.",
    409: "Not in the state that it is in.",
    413: "The body is too long.",
    415: "The body is not declared as JSON.",
    429: "Too much waits already. `Retry-After` says when to come back.",
    500: "The completion failed.",
    503: "The model is loading, or the service is shutting down. `Retry-After` says when to come back.",
    504: "The request was not done before its deadline.",
}
