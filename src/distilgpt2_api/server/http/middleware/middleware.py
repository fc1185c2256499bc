"""The outermost middleware: request ids, security headers, one log line per request, metrics, unexpected errors."""

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilgpt2_api.observability.http_metrics import HttpMetrics
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.server.http.errors import INTERNAL, REFUSALS
from distilgpt2_api.server.http.middleware.security_headers import add_security_headers
from distilgpt2_api.server.http.requests.head import CLOSE_HEADER, asks_for_other_protocol, check_head
from distilgpt2_api.server.http.requests.record import has_record
from distilgpt2_api.server.http.routing.paths import METRICS_PATH, PROBE_PATHS
from distilgpt2_api.server.http.routing.protocol import Protocols
from distilgpt2_api.server.lifecycle.drain import ShutdownState

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
CLIENT_CLOSED = 499
"""nginx's status for a client that disconnected before it got one; in logs and metrics only."""
UNMATCHED = "unmatched"
"""Route label of paths that match no route."""
QUIET_ROUTES = PROBE_PATHS | {METRICS_PATH}
"""Polled every few seconds: logged at debug level."""


class AccessLog(Protocol):
    """The part of a structlog logger that is used."""

    def info(self, event: str, **fields: object) -> object: ...

    def debug(self, event: str, **fields: object) -> object: ...

    def exception(self, event: str, **fields: object) -> object: ...


@dataclass(frozen=True, slots=True)
class RequestMiddleware:
    """Plain ASGI, so that streams and disconnects pass through unchanged."""

    app: ASGIApp
    _: KW_ONLY
    metrics: HttpMetrics
    access_log: AccessLog
    protocols: Protocols
    shutdown: ShutdownState
    answer_failure: ASGIApp
    traces: Traces | None = None
    clock: Callable[[], float] = time.perf_counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or has_record(scope):  # a batch line, called in process, has one
            await self.app(scope, receive, send)
            return
        record = RequestRecord(
            request_id=_request_id(scope),
            method=scope["method"],
            headers=scope["headers"],
            clock=self.clock,
            started_s=self.clock(),
        )
        scope.setdefault("state", {})["request_record"] = record
        header = (b"x-request-id", record.request_id.encode())
        app: ASGIApp = self.app
        if (refusal := check_head(scope)) is not None:
            app = self.protocols.default_error_response(refusal, scope)
        # Bare Uvicorn may have left this request's body in the connection, so no request may follow on it.
        is_last = asks_for_other_protocol(scope["headers"])
        self.metrics.begin()
        self.shutdown.num_in_flight += 1
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                is_closing = (is_last or self.shutdown.is_imminent) and CLOSE_HEADER not in message["headers"]
                add_security_headers(message, *((header, CLOSE_HEADER) if is_closing else (header,)))
            elif not message.get("more_body"):
                record.settle(is_refusal=_is_refusal(record, status))  # before the client has the whole answer
            await send(message)

        try:
            await app(scope, receive, send_with_id)
        except ClientDisconnect:
            record.is_disconnect = True
        except Exception:
            self.access_log.exception("unexpected error", request_id=record.request_id, route=_route(scope))
            if status is not None:
                record.error_code = INTERNAL.code
                raise  # The server closes the connection: the only way left to show that the response is incomplete.
            await self.answer_failure(scope, receive, send_with_id)
        finally:
            self.shutdown.num_in_flight -= 1
            self._report(scope, record, status or CLIENT_CLOSED)

    def _report(self, scope: Scope, record: RequestRecord, status: int) -> None:
        record.status = int(status)  # an HTTPStatus, as errors have it, would be written with its name
        record.duration_s = self.clock() - record.started_s
        record.route = _route(scope)
        record.operation = self.protocols.find_operation(record.route)
        is_quiet = record.route in QUIET_ROUTES
        is_refusal = _is_refusal(record, status) and not is_quiet
        record.settle()
        self.metrics.observe(record, refusal_code=record.error_code if is_refusal else None)
        fields = record.log_fields()
        if self.traces is not None and not is_quiet:
            fields["trace_id"] = self.traces.add(record)
        (self.access_log.debug if is_quiet else self.access_log.info)("request", **fields)


def _is_refusal(record: RequestRecord, status: int | None) -> bool:
    return status in REFUSALS and record.admitted_s is None


def _request_id(scope: Scope) -> str:
    """The client's own id if it is valid, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and VALID_REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", UNMATCHED))
