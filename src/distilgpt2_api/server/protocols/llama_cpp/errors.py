"""llama.cpp's errors: OpenAI's form, with the status as `code` and types of its own."""

from http import HTTPStatus
from typing import Literal

import orjson

from distilgpt2_api.server.http.error_shape import DESCRIPTIONS, ErrorShape
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
    kind = TYPES.get(answer.status, "invalid_request_error")
    if answer.code == "context_length_exceeded":
        kind = CONTEXT_TYPE
    return orjson.dumps({"error": {"code": answer.status, "message": answer.named_message, "type": kind}})


LLAMA_CPP_ERRORS = ErrorShape(
    name="llama.cpp",
    model=LlamaErrorResponse,
    descriptions=DESCRIPTIONS,
    body=_body,
    last_event=lambda answer: b"data: " + _body(answer) + b"\n\n",
)
