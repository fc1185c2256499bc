"""Errors of Ray's handle are translated to ours. Needs no cluster."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.types import Message

from distilgpt2_api.core.errors import OverloadedError, ReplicaLostError, UnavailableError
from distilgpt2_api.scale_out.gateway.forwarded import ForwardedRequest
from distilgpt2_api.scale_out.ray_serve import EngineReplicas

NOTHING = ForwardedRequest(scope={}, body=b"")


class FailingResponse:
    """Like Ray's: if the request never reached a replica, `cancel` raises the error again."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        raise self._error

    def cancel(self) -> None:
        raise self._error


class FailingHandle:
    """All its requests fail."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def options(self, **_: Any) -> Self:
        return self

    def remote(self, *_: Any, **__: Any) -> Any:
        return FailingResponse(self._error)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (BackPressureError(9, 8), OverloadedError, "all replicas are busy, and the queue is full"),
        (DeploymentUnavailableError(None), UnavailableError, "no replica can take the request now"),
        (ActorDiedError(), ReplicaLostError, "the replica that had the request is gone"),
    ],
)
def test_rays_errors_become_our_errors(error: Exception, expected: type[Exception], message: str) -> None:
    async def ask() -> None:
        async for _ in EngineReplicas(FailingHandle(error)).ask(NOTHING):
            pass

    with pytest.raises(expected, match=message):
        asyncio.run(ask())
