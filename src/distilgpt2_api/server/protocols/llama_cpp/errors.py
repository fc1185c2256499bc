"""llama.cpp's errors: OpenAI's form, with the status as `code` and types of its own."""

from http import HTTPStatus
from typing import Literal

import orjson

from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import ErrorAnswer
from distilgpt2_api.server.schema.deferred_model import DeferredModel

TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "unavailable_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable_error",
    HTTPStatus.GATEWAY_TIMEOUT: "server_error",
}
"""By status; for all others `invalid_request_error`."""
CONTEXT_TYPE = "exceed_context_size_error"


class LlamaError(DeferredModel):
    code: int
    message: str
    type: Literal[
        "authentication_error",
        "exceed_context_size_error",
        "invalid_request_error",
        "not_found_error",
        "permission_error",
        "server_error",
        "unavailable_error",
    ]


class LlamaErrorResponse(DeferredModel):
    """Every status of 400 and above has it on llama.cpp's routes, and so has the last event of a stream that failed."""

    error: LlamaError


def _body(answer: ErrorAnswer) -> bytes:
    """It has no field for the parameter's name, so the message has it."""
    is_named = answer.param is None or answer.param in answer.message
    message = answer.message if is_named else f"{answer.param}: {answer.message}"
    kind = TYPES.get(answer.status, "invalid_request_error")
    if answer.code == "context_length_exceeded":
        kind = CONTEXT_TYPE
    return orjson.dumps({"error": {"code": answer.status, "message": message, "type": kind}})


LLAMA_CPP_ERRORS = ErrorShape(
    name="llama.cpp",
    model=LlamaErrorResponse,
    descriptions={
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
    },
    body=_body,
    last_event=lambda answer: b"data: " + _body(answer) + b"\n\n",
)
