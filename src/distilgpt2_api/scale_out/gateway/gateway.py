"""The ASGI application in front of the replicas: forwards each request to one, and retries it if that one is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import orjson
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from distilgpt2_api.core.errors import DeadlineExceededError, Distilgpt2ApiError, ReplicaLostError, UnavailableError
from distilgpt2_api.observability.metrics_page import encode_families, label_samples
from distilgpt2_api.scale_out.gateway.forwarded import ForwardedRequest, WholeAnswer, forwardable_scope
from distilgpt2_api.scale_out.gateway.prefixes import prefixes_of
from distilgpt2_api.server.http.errors import describe_error
from distilgpt2_api.server.http.middleware.cross_origin import CrossOrigin
from distilgpt2_api.server.http.middleware.security_headers import add_security_headers
from distilgpt2_api.server.http.requests.body import Uploads, read_body
from distilgpt2_api.server.http.responses.stream_formats import StreamFormat
from distilgpt2_api.server.http.routing.paths import (
    LIVENESS_PATH,
    METRICS_PATH,
    READINESS_PATHS,
    path_below_root,
    strip_trailing_slash,
)
from distilgpt2_api.server.http.routing.protocol import Protocols

logger = logging.getLogger(__name__)

MAX_REPLICAS_TRIED = 3
"""A request that crashes its replica must not crash all of them."""
LATE = DeadlineExceededError("the request did not finish before its deadline")


class Replicas(Protocol):
    """Sends requests to the replicas of the application."""

    def ask(self, request: ForwardedRequest) -> AsyncGenerator[list[Message]]:
        """One replica's response. Raises ReplicaLostError if it breaks off, or UnavailableError."""

    async def ask_all(self, request: ForwardedRequest) -> Sequence[WholeAnswer]:
        """The response of every replica. Raises UnavailableError if there is none, or if they take too long."""


@dataclass(kw_only=True, eq=False)
class Gateway:
    """Forwards requests, and behaves towards clients like a single process.

    If a replica is lost before it has sent a byte, another one gets the request; later, the stream ends with an error
    event. The replicas check keys, limits and parameters. Probes and metrics, which concern all replicas, are answered
    here.
    """

    replicas: Replicas
    protocols: Protocols
    max_body_bytes: int
    uploads: Uploads
    body_timeout_s: float
    timeout_s: float
    """From the end of the body to the end of the response, with the wait for a replica."""
    root_path: str
    cors_origins: Collection[str] = ()
    """Origins whose pages may read the gateway's own errors. The replicas set their own headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve({**scope, "root_path": self.root_path or scope.get("root_path", "")}, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        original = forwardable_scope(scope)
        strip_trailing_slash(scope)
        path = path_below_root(scope)
        protocol = self.protocols.find(scope["method"], path)
        answer = _Answer(send, protocol.stream_format)
        try:
            body = await read_body(
                Request(scope, receive),
                max_bytes=self.max_body_bytes,
                timeout_s=self.body_timeout_s,
                uploads=self.uploads,
            )
            request = ForwardedRequest(scope=original, body=body, prefixes=prefixes_of(body, protocol.prompt_keys))
            # The application refuses other methods.
            is_read = scope["method"] in {"GET", "HEAD"}
            if is_read and path == LIVENESS_PATH:
                await answer.write_json(HTTPStatus.OK, {"status": "ok"})
            elif is_read and path in READINESS_PATHS:
                await self._answer_readiness(request, answer)
            elif is_read and path == METRICS_PATH:
                await self._answer_metrics(request, answer)
            else:
                async with asyncio.timeout(self.timeout_s):
                    await self._forward(request, answer)
        except ClientDisconnect:
            return
        except Exception as raised:
            error = LATE if isinstance(raised, TimeoutError) else raised
            if not isinstance(error, Distilgpt2ApiError):
                logger.exception("a request could not be forwarded")
            described = describe_error(error)
            if not answer.has_begun:
                refusal = CrossOrigin(
                    self.protocols.error_response(described, scope),
                    origins=self.cors_origins,
                    protocols=self.protocols,
                )
                await refusal(scope, receive, answer.add_headers)
            elif answer.is_stream:
                await answer.end_stream(protocol.errors.last_event(described))
            else:
                raise  # The server closes the connection: the only way left to show that the response is incomplete.

    async def _forward(self, request: ForwardedRequest, answer: _Answer) -> None:
        for num_lost in range(1, MAX_REPLICAS_TRIED + 1):
            is_last = num_lost == MAX_REPLICAS_TRIED
            try:
                async with aclosing(self.replicas.ask(request)) as pieces:
                    async for messages in pieces:
                        if not is_last and not answer.has_begun and _is_unavailable(messages[0]):
                            break
                        for message in messages:
                            await answer.pass_on(message)
                    else:
                        return
                logger.info("a replica refused the request; it goes to another")
            except ReplicaLostError:
                if answer.has_begun or is_last:
                    raise
                logger.warning("a replica was lost; its request goes to another")

    async def _answer_readiness(self, request: ForwardedRequest, answer: _Answer) -> None:
        try:
            answers = await self.replicas.ask_all(request)
        except UnavailableError:
            answers = ()
        if not answers:
            await answer.write_json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "loading"})
            return
        await answer.write(min(answers, key=lambda one: one.status))

    async def _answer_metrics(self, request: ForwardedRequest, answer: _Answer) -> None:
        """All replicas' metrics. If a replica refuses, its response is passed on."""
        headers = Headers(scope=request.scope)
        plain = [(name, value) for name, value in request.scope["headers"] if name != b"accept"]
        asked = ForwardedRequest(scope={**request.scope, "method": "GET", "headers": plain}, body=b"")
        answers = await self.replicas.ask_all(asked)
        if refusal := next((one for one in answers if one.status != HTTPStatus.OK), None):
            await answer.write(refusal)
            return
        page, content_type = _render_pages(answers, headers.get("accept", ""))
        sent = [(name, value) for name, value in answers[0].headers if name not in {b"content-type", b"content-length"}]
        new = [(b"content-type", content_type.encode()), (b"content-length", str(len(page)).encode())]
        await answer.write(WholeAnswer(replica="", status=HTTPStatus.OK, headers=(*sent, *new), body=page))


class _Answer:
    """One request's response, as far as it has been sent. Mutable."""

    def __init__(self, send: Send, stream_format: StreamFormat) -> None:
        self._send = send
        self._stream_type = _media_type(stream_format.content_type)
        self.has_begun = False
        self.is_stream = False

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            # The server in front of the gateway adds its own request id.
            headers = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
            self.is_stream = any(
                name == b"content-type" and _media_type(value) == self._stream_type for name, value in headers
            )
            message = {**message, "headers": headers}
        await self._send(message)

    async def add_headers(self, message: Message) -> None:
        """`send` for the gateway's own responses."""
        if message["type"] == "http.response.start":
            add_security_headers(message)
        await self.pass_on(message)

    async def write(self, whole: WholeAnswer) -> None:
        await self.pass_on({"type": "http.response.start", "status": whole.status, "headers": list(whole.headers)})
        await self._send({"type": "http.response.body", "body": whole.body})

    async def write_json(self, status: HTTPStatus, value: object) -> None:
        body = orjson.dumps(value)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.add_headers({"type": "http.response.start", "status": int(status), "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def end_stream(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _render_pages(answers: Iterable[WholeAnswer], accept: str) -> tuple[bytes, str]:
    """One page of all metrics, in the format that the Accept header requests, and its content type.

    Each sample has its replica as a label. In a sum, the end of a replica would look to Prometheus like a restarted
    counter, and the counts of all others like an increase.
    """
    families: dict[str, Metric] = {}
    for answer in answers:
        for family in text_string_to_metric_families(answer.body.decode()):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += label_samples(family.samples, {"replica": answer.replica})
    return encode_families(families.values(), accept)


def _is_unavailable(first: Message) -> bool:
    """Whether a replica refuses a request that another may accept, because it drains or its engine has failed."""
    return first["type"] == "http.response.start" and bool(first["status"] == HTTPStatus.SERVICE_UNAVAILABLE)


def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0]


async def _live(receive: Receive, send: Send) -> None:
    """Nothing to start or stop."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})
