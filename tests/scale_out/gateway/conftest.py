"""Scripted replicas: one script for each request, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.server.protocols.toy.protocol import TOY

from distilgpt2_api.scale_out.gateway.forwarded import ForwardedRequest, WholeAnswer
from distilgpt2_api.scale_out.gateway.gateway import Gateway
from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.requests.body import Uploads
from distilgpt2_api.server.http.routing.protocol import Protocols

Part = list[dict[str, Any]] | Exception


@dataclass
class ScriptedReplicas:
    """`Replicas` that follow scripts. A list in a script is yielded, an exception is raised."""

    scripts: list[Sequence[Part]] = field(default_factory=list)
    broadcast: Sequence[WholeAnswer] | Exception = ()
    asked: list[ForwardedRequest] = field(default_factory=list)
    num_closed: int = 0
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    is_hanging: bool = False

    async def ask(self, request: ForwardedRequest) -> AsyncGenerator[Any]:
        self.asked.append(request)
        script = self.scripts[len(self.asked) - 1]
        try:
            for part in script:
                if isinstance(part, Exception):
                    raise part
                yield part
            self.is_asked.set()
            if self.is_hanging:
                await asyncio.Event().wait()
        finally:
            self.num_closed += 1

    async def ask_all(self, request: ForwardedRequest) -> Sequence[WholeAnswer]:
        self.asked.append(request)
        if isinstance(self.broadcast, Exception):
            raise self.broadcast
        return self.broadcast


def start(status: int = 200, content_type: bytes = b"application/json", *others: tuple[bytes, bytes]) -> dict[str, Any]:
    headers = [(b"content-type", content_type), (b"x-request-id", b"from-the-replica"), *others]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, *, is_last: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": not is_last}


@dataclass(frozen=True)
class Messages:
    """Builds the messages of scripts."""

    start: Callable[..., dict[str, Any]] = start
    body: Callable[..., dict[str, Any]] = body


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def replicas() -> ScriptedReplicas:
    return ScriptedReplicas()


@pytest.fixture
def body_timeout_s() -> float:
    """Long; a test of the limit parametrizes it."""
    return 30.0


@pytest.fixture
def timeout_s() -> float:
    """Long; a test of the limit parametrizes it."""
    return 30.0


@pytest.fixture
def gateway(replicas: ScriptedReplicas, body_timeout_s: float, timeout_s: float) -> Gateway:
    return Gateway(
        replicas=replicas,
        protocols=Protocols(*PROTOCOLS, TOY),
        max_body_bytes=1024,
        uploads=Uploads(4096),
        body_timeout_s=body_timeout_s,
        timeout_s=timeout_s,
        root_path="",
        cors_origins=("https://app.example.com",),
    )


@pytest.fixture
def call(gateway: Gateway) -> Callable[..., httpx.Response]:
    """Sends one request and returns its response."""

    def send(method: str, path: str, **options: Any) -> httpx.Response:
        async def play() -> httpx.Response:
            transport = httpx.ASGITransport(gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **options)

        return asyncio.run(play())

    return send
