"""The one table that says what HTTP calls an error, and the shapes in which the protocols' clients read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distilgpt2_api.core.errors import (
    ConflictError,
    ContextLengthError,
    DeadlineExceededError,
    Distilgpt2ApiError,
    DrainingError,
    EngineFailedError,
    GenerationError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    QuotaError,
    RateLimitError,
    StoreError,
    StoreFullError,
    UnavailableError,
    UnsupportedParameterError,
)
from distilgpt2_api.server.http.paths import path_below_root
from distilgpt2_api.server.http.request_record import note_error

MAX_RETRY_AFTER_S = 120.0


class UnknownModelError(InvalidRequestError):
    """The request names a model that is not served here."""


class UnknownParameterError(InvalidRequestError):
    """A parameter that no protocol of ours has."""


class AuthenticationError(Distilgpt2ApiError):
    """The request has no API key, or none that is valid here."""


class OriginError(InvalidRequestError):
    """A browser asks for a page of an origin that may not use the service."""


class NotEnabledError(InvalidRequestError):
    """What a setting would have to switch on."""


class MediaTypeError(InvalidRequestError):
    """The body is declared as something else than JSON."""


class BodyTooLargeError(InvalidRequestError):
    """The body is longer than the setting allows."""


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table."""

    status: HTTPStatus
    type: str
    code: str | None
    will_pass: bool | None = None
    """Whether the same request may work later; None: the status says it."""


INVALID = "invalid_request_error"
UNAVAILABLE = "service_unavailable_error"
GENERATION_FAILED = "generation_failed"

KINDS: dict[type[Distilgpt2ApiError], Kind] = {
    InvalidRequestError: Kind(HTTPStatus.BAD_REQUEST, INVALID, None),
    ContextLengthError: Kind(HTTPStatus.BAD_REQUEST, INVALID, "context_length_exceeded"),
    UnsupportedParameterError: Kind(HTTPStatus.BAD_REQUEST, INVALID, "unsupported_parameter"),
    UnknownParameterError: Kind(HTTPStatus.BAD_REQUEST, INVALID, "unknown_parameter"),
    OriginError: Kind(HTTPStatus.FORBIDDEN, INVALID, "origin_not_allowed"),
    UnknownModelError: Kind(HTTPStatus.NOT_FOUND, INVALID, "model_not_found"),
    NotEnabledError: Kind(HTTPStatus.NOT_FOUND, INVALID, "not_enabled"),
    NotFoundError: Kind(HTTPStatus.NOT_FOUND, INVALID, "not_found"),
    # OpenAI's client would send it again, after a conflict.
    ConflictError: Kind(HTTPStatus.CONFLICT, INVALID, "conflict", will_pass=False),
    QuotaError: Kind(HTTPStatus.BAD_REQUEST, INVALID, "quota_exceeded"),
    AuthenticationError: Kind(HTTPStatus.UNAUTHORIZED, INVALID, "invalid_api_key", will_pass=False),
    MediaTypeError: Kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type"),
    BodyTooLargeError: Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID, "body_too_large"),
    # 408 would make clients send the same slow body again.
    BodyTimeoutError: Kind(HTTPStatus.REQUEST_TIMEOUT, INVALID, "body_timeout", will_pass=False),
    OverloadedError: Kind(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "overloaded", will_pass=True),
    RateLimitError: Kind(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", will_pass=True),
    DrainingError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "draining", will_pass=True),
    NotReadyError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "not_ready", will_pass=True),
    EngineFailedError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "engine_failed", will_pass=True),
    StoreFullError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "store_full", will_pass=True),
    StoreError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "store_unavailable", will_pass=True),
    UnavailableError: Kind(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "unavailable", will_pass=True),
    GenerationError: Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", GENERATION_FAILED, will_pass=False),
    # The deadline would pass again: retries of a busy service's clients would only feed the queue.
    DeadlineExceededError: Kind(HTTPStatus.GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded", will_pass=False),
    Distilgpt2ApiError: Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", None, will_pass=False),
}

REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses of requests that are turned away though nothing is wrong with them."""
REFUSAL_CODES = tuple(dict.fromkeys(kind.code for kind in KINDS.values() if kind.code and kind.status in REFUSALS))

TGI_PATHS = frozenset({"/generate", "/generate_stream", "/info"})
"""Whatever is asked there, its errors have the shape, statuses and words of Hugging Face's TGI; see `is_tgi`."""

TGI_STATUSES: dict[int | str, tuple[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: (HTTPStatus.UNPROCESSABLE_ENTITY, "validation"),
    HTTPStatus.TOO_MANY_REQUESTS: (HTTPStatus.TOO_MANY_REQUESTS, "overloaded"),
    HTTPStatus.INTERNAL_SERVER_ERROR: (HTTPStatus.INTERNAL_SERVER_ERROR, "incomplete_generation"),
    HTTPStatus.SERVICE_UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "healthcheck"),
    HTTPStatus.GATEWAY_TIMEOUT: (HTTPStatus.GATEWAY_TIMEOUT, "incomplete_generation"),
    GENERATION_FAILED: (HTTPStatus.FAILED_DEPENDENCY, "generation"),
}
"""What TGI calls our statuses, or our codes where they say more. Those not here keep their status and are
`validation`: something is wrong with the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An error as HTTP has it, before any protocol gives it its shape."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def openai_body(self) -> bytes:
        """`Error` of OpenAI's specification: all four keys, `param` and `code` string or null."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI has them."""
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]

    @property
    def tgi_status(self) -> int:
        return self._tgi[0]

    @property
    def tgi_body(self) -> bytes:
        """TGI's `ErrorResponse`. It has no place for the parameter's name: the message has it."""
        is_named = self.param is None or self.param in self.message
        message = self.message if is_named else f"{self.param}: {self.message}"
        return orjson.dumps({"error": message, "error_type": self._tgi[1]})

    @property
    def _tgi(self) -> tuple[int, str]:
        default = TGI_STATUSES.get(self.status, (self.status, "validation"))
        return default if self.code is None else TGI_STATUSES.get(self.code, default)


INTERNAL = ErrorAnswer(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    message="the service made a mistake; its log has the details",
    type="server_error",
    code="internal_error",
    headers={"x-should-retry": "false"},
)


def describe_error(error: Exception) -> ErrorAnswer:
    """What to answer. An error that nobody raised on purpose is INTERNAL, and tells nothing of itself."""
    if not isinstance(error, Distilgpt2ApiError):
        return INTERNAL
    kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
    headers: dict[str, str] = {}
    if kind.will_pass is not None:
        headers["x-should-retry"] = "true" if kind.will_pass else "false"
    if isinstance(error, UnavailableError):
        wait_s = min(max(error.retry_after_s, 0.0), MAX_RETRY_AFTER_S)
        headers["retry-after"] = str(math.ceil(wait_s))
        headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, BodyTooLargeError | BodyTimeoutError):
        headers["connection"] = "close"  # What is left of the body is not worth reading.
    return ErrorAnswer(
        status=kind.status,
        message=str(error),
        type=kind.type,
        param=error.param if isinstance(error, InvalidRequestError) else None,
        code=kind.code,
        headers=headers,
    )


def is_tgi(method: str, path: str) -> bool:
    """Whether the errors of a request are TGI's. All others are OpenAI's, those of `GET /` and unknown paths, too.

    By the path, since there is no route where a key is missing or a method is wrong: TGI's paths have no parameters.
    """
    return path in TGI_PATHS or (path, method) == ("/", "POST")


def error_response(answer: ErrorAnswer, scope: Scope) -> Response:
    """In the shape of the protocol that the request speaks."""
    note_error(scope, answer.code or answer.type)
    in_tgi = is_tgi(scope["method"], path_below_root(scope))
    return Response(
        answer.tgi_body if in_tgi else answer.openai_body,
        status_code=answer.tgi_status if in_tgi else answer.status,
        headers=answer.headers,
        media_type="application/json",
    )


async def answer_failure(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application that answers INTERNAL."""
    await error_response(INTERNAL, scope)(scope, receive, send)


def refused_response(answer: ErrorAnswer, scope: Scope) -> Response:
    """For what no protocol of ours has a shape for: HTTP itself is not kept."""
    note_error(scope, answer.code or answer.type)
    return Response(
        answer.openai_body, status_code=answer.status, headers=answer.headers, media_type="application/json"
    )


async def answer_own_error(request: Request, error: Exception) -> Response:
    """Handler of Distilgpt2ApiError."""
    return error_response(describe_error(error), request.scope)
