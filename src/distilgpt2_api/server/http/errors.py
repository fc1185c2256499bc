"""The table of errors with their HTTP statuses. How an error looks in a protocol is its `ErrorShape`."""

import math
from dataclasses import dataclass, field
from http import HTTPStatus

from distilgpt2_api.core.errors import (
    BudgetError,
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

MAX_RETRY_AFTER_S = 120.0


class UnknownModelError(InvalidRequestError):
    """The request names a model that is not served."""


class UnknownParameterError(InvalidRequestError):
    """A parameter that none of our protocols has."""


class AuthenticationError(Distilgpt2ApiError):
    """The request has no valid API key."""


class OriginError(InvalidRequestError):
    """The origin of a browser's page is not allowed to use the service."""


class NotEnabledError(InvalidRequestError):
    """A feature that a setting must enable first."""


class MediaTypeError(InvalidRequestError):
    """The body's declared media type is not supported."""


class BodyTooLargeError(InvalidRequestError):
    """The body is longer than the setting allows."""


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""


@dataclass(frozen=True, slots=True)
class ErrorMapping:
    """One row of the table: how HTTP and OpenAI's protocol classify an error."""

    status: HTTPStatus
    type: str
    code: str | None
    is_retryable: bool | None = None
    """Whether the same request may succeed later. None: the status tells."""


INVALID = "invalid_request_error"
UNAVAILABLE = "service_unavailable_error"
GENERATION_FAILED = "generation_failed"

ERROR_MAPPINGS: dict[type[Distilgpt2ApiError], ErrorMapping] = {
    InvalidRequestError: ErrorMapping(HTTPStatus.BAD_REQUEST, INVALID, None),
    ContextLengthError: ErrorMapping(HTTPStatus.BAD_REQUEST, INVALID, "context_length_exceeded"),
    UnsupportedParameterError: ErrorMapping(HTTPStatus.BAD_REQUEST, INVALID, "unsupported_parameter"),
    UnknownParameterError: ErrorMapping(HTTPStatus.BAD_REQUEST, INVALID, "unknown_parameter"),
    OriginError: ErrorMapping(HTTPStatus.FORBIDDEN, INVALID, "origin_not_allowed"),
    UnknownModelError: ErrorMapping(HTTPStatus.NOT_FOUND, INVALID, "model_not_found"),
    NotEnabledError: ErrorMapping(HTTPStatus.NOT_FOUND, INVALID, "not_enabled"),
    NotFoundError: ErrorMapping(HTTPStatus.NOT_FOUND, INVALID, "not_found"),
    # OpenAI's client retries 409 by default.
    ConflictError: ErrorMapping(HTTPStatus.CONFLICT, INVALID, "conflict", is_retryable=False),
    QuotaError: ErrorMapping(HTTPStatus.BAD_REQUEST, INVALID, "quota_exceeded"),
    AuthenticationError: ErrorMapping(HTTPStatus.UNAUTHORIZED, INVALID, "invalid_api_key", is_retryable=False),
    MediaTypeError: ErrorMapping(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type"),
    BodyTooLargeError: ErrorMapping(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID, "body_too_large"),
    # OpenAI's client retries 408 by default, and would send the same slow body again.
    BodyTimeoutError: ErrorMapping(HTTPStatus.REQUEST_TIMEOUT, INVALID, "body_timeout", is_retryable=False),
    OverloadedError: ErrorMapping(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "overloaded", is_retryable=True),
    RateLimitError: ErrorMapping(
        HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", is_retryable=True
    ),
    # OpenAI's type and code, which clients don't retry: the next period may be weeks away.
    BudgetError: ErrorMapping(
        HTTPStatus.TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota", is_retryable=False
    ),
    DrainingError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "draining", is_retryable=True),
    NotReadyError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "not_ready", is_retryable=True),
    EngineFailedError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "engine_failed", is_retryable=True),
    StoreFullError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "store_full", is_retryable=True),
    StoreError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "store_unavailable", is_retryable=True),
    UnavailableError: ErrorMapping(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "unavailable", is_retryable=True),
    GenerationError: ErrorMapping(
        HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", GENERATION_FAILED, is_retryable=False
    ),
    # A retry would only lengthen the queue of a busy service.
    DeadlineExceededError: ErrorMapping(
        HTTPStatus.GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded", is_retryable=False
    ),
    Distilgpt2ApiError: ErrorMapping(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", None, is_retryable=False),
}

REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses of valid requests that the service refuses for now."""
REFUSAL_CODES = tuple(
    dict.fromkeys(mapping.code for mapping in ERROR_MAPPINGS.values() if mapping.code and mapping.status in REFUSALS)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An error before a protocol's `ErrorShape` formats it."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def named_message(self) -> str:
        """The message with the parameter's name, for protocols whose errors have no field for it."""
        is_named = self.param is None or self.param in self.message
        return self.message if is_named else f"{self.param}: {self.message}"

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them."""
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]


INTERNAL = ErrorAnswer(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    message="internal error; the service's log has the details",
    type="server_error",
    code="internal_error",
    headers={"x-should-retry": "false"},
)


def describe_error(error: Exception) -> ErrorAnswer:
    """Describes an error to a client. An error that is not one of ours becomes INTERNAL, without its details."""
    if not isinstance(error, Distilgpt2ApiError):
        return INTERNAL
    mapping = next(ERROR_MAPPINGS[cls] for cls in type(error).__mro__ if cls in ERROR_MAPPINGS)
    headers: dict[str, str] = {}
    if mapping.is_retryable is not None:
        headers["x-should-retry"] = "true" if mapping.is_retryable else "false"
    if isinstance(error, UnavailableError):
        # An estimate is bounded. The end of a budget's period is exact.
        longest_s = math.inf if isinstance(error, BudgetError) else MAX_RETRY_AFTER_S
        wait_s = min(max(error.retry_after_s, 0.0), longest_s)
        headers["retry-after"] = str(math.ceil(wait_s))
        headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, BodyTooLargeError | BodyTimeoutError):
        headers["connection"] = "close"  # The rest of the body is not read.
    return ErrorAnswer(
        status=mapping.status,
        message=str(error),
        type=mapping.type,
        param=error.param if isinstance(error, InvalidRequestError) else None,
        code=mapping.code,
        headers=headers,
    )
