"""TGI's errors: its own statuses and types."""

from http import HTTPStatus
from typing import Literal

import orjson

from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.errors import GENERATION_FAILED, ErrorAnswer
from distilgpt2_api.server.schema.deferred_model import DeferredModel

STATUSES: dict[int | str, tuple[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: (HTTPStatus.UNPROCESSABLE_ENTITY, "validation"),
    HTTPStatus.TOO_MANY_REQUESTS: (HTTPStatus.TOO_MANY_REQUESTS, "overloaded"),
    HTTPStatus.INTERNAL_SERVER_ERROR: (HTTPStatus.INTERNAL_SERVER_ERROR, "incomplete_generation"),
    HTTPStatus.SERVICE_UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "healthcheck"),
    HTTPStatus.GATEWAY_TIMEOUT: (HTTPStatus.GATEWAY_TIMEOUT, "incomplete_generation"),
    GENERATION_FAILED: (HTTPStatus.FAILED_DEPENDENCY, "generation"),
}
"""TGI's status and `error_type` for our status, or for our code, which wins. All others keep their status and are
`validation`: the request is wrong."""


class TgiErrorResponse(DeferredModel):
    """Every status of 400 and above has it on TGI's routes, and so has the last event of a stream that failed."""

    error: str
    error_type: Literal["validation", "overloaded", "generation", "incomplete_generation", "healthcheck"]


def _status_and_type(answer: ErrorAnswer) -> tuple[int, str]:
    default = STATUSES.get(answer.status, (answer.status, "validation"))
    return default if answer.code is None else STATUSES.get(answer.code, default)


def _body(answer: ErrorAnswer) -> bytes:
    """TGI's `ErrorResponse`."""
    return orjson.dumps({"error": answer.named_message, "error_type": _status_and_type(answer)[1]})


TGI_ERRORS = ErrorShape(
    name="TGI",
    model=TgiErrorResponse,
    descriptions={
        401: "No valid API key (`validation`).",
        408: "The body did not arrive in time (`validation`).",
        413: "The body is too long (`validation`).",
        415: "The body is not declared as JSON (`validation`).",
        422: "The request is wrong; the message names the parameter (`validation`).",
        424: "The generation failed (`generation`).",
        429: "The queue is full, or a limit is reached (`overloaded`). `Retry-After` tells when to retry.",
        500: "Internal error (`incomplete_generation`).",
        503: "The model is loading, or the service is shutting down (`healthcheck`). `Retry-After` tells when to "
        "retry.",
        504: "The request did not finish before its deadline (`incomplete_generation`).",
    },
    status=lambda answer: _status_and_type(answer)[0],
    body=_body,
    last_event=lambda answer: b"data:" + _body(answer) + b"\n\n",
)
