"""`app` for Ray Serve: `serve run distilgpt2_api.scale_out.ray_serve:app`. The only module that imports Ray Serve.

A gateway on the proxy's node forwards requests to engine replicas on any node that has free cores.
"""

from __future__ import annotations

import os
import random
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import get_runtime_context, serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica
from starlette.types import Message

from distilgpt2_api.application import build_app
from distilgpt2_api.core.errors import OverloadedError, ReplicaLostError, SettingsError, UnavailableError
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine_preload import read_settings
from distilgpt2_api.scale_out.gateway.forwarded import ForwardedRequest, WholeAnswer, answer, whole_answer
from distilgpt2_api.scale_out.gateway.gateway import Gateway
from distilgpt2_api.scale_out.gateway.prefixes import PrefixMemory
from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.requests.body import Uploads
from distilgpt2_api.server.lifecycle.lifespan import exit_on_failure
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.sources import own_environment

GATEWAY_MAX_REQUESTS = 16384
"""Requests in flight in one gateway: as many as one server has connections."""
HEADROOM_REQUESTS = 256
"""Room for requests that an engine refuses, and for probes and metrics, which must not wait behind others."""
ASK_ALL_TIMEOUT_S = 5.0
DEADLINE_GRACE_S = 1.0
"""Lets the replica's own deadline pass first, unless the request had to wait for a replica."""
MAX_LEAD = 4
"""How many more requests than the least busy replica the one with the prefix may have. Waiting for a few steps costs
less than computing the prefix again."""
HEAD_NODE = "node:__internal_head__"
"""Ray's name for the head node, as a resource."""


class Scale(BaseModel):
    """The arguments of `serve run`. Ray's own options are set in its `deployments`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """None: always `min_replicas`."""
    cores: float = Field(default=1.0, gt=0)
    """CPU cores, and compute threads, of each replica."""
    gateways: int = Field(default=1, ge=1)
    """One runs on the head node. Several run on one node each, behind a load balancer."""

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            message = f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})"
            raise ValueError(message)
        return self


def app(args: dict[str, Any]) -> serve.Application:
    """Ray's application builder. Reads the settings from the environment in which it is called.

    Raises SettingsError. If the model is missing or can't be loaded, the replicas report it.
    """
    try:
        scale = Scale.model_validate(args)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "".join(f"{part}: " for part in first["loc"])
        raise SettingsError(name + first["msg"].removeprefix("Value error, ")) from None
    settings = Settings()
    environment = {"env_vars": own_environment()}
    engine = serve.deployment(
        EngineReplica,
        name="engine",
        # By default Ray gives a replica 5 requests at a time and queues the rest without a limit. Here requests wait in
        # the engines, which know shares, priorities and sizes, and refuse excess load.
        max_ongoing_requests=settings.max_num_sequences + settings.max_waiting_requests + HEADROOM_REQUESTS,
        max_queued_requests=settings.max_waiting_requests + HEADROOM_REQUESTS,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas or scale.min_replicas,
            # Scale up once batches are half full on average: beyond that, each token waits for others.
            target_ongoing_requests=max(1, settings.max_num_sequences // 2),
        ),
        ray_actor_options={"num_cpus": scale.cores, "runtime_env": environment},
        request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
        # A replica that stops gets no new requests, and as much time as its running requests may take.
        graceful_shutdown_timeout_s=settings.timeout_s,
        graceful_shutdown_wait_loop_s=0.5,
        # Loading a broken model 20 times, Ray's default, would not help.
        max_constructor_retry_count=1,
        logging_config={"enable_access_log": False},  # our own log has more
    )
    is_on_head = scale.gateways == 1
    gateway = serve.deployment(
        GatewayReplica,
        name="gateway",
        num_replicas=scale.gateways,
        max_replicas_per_node=None if is_on_head else 1,
        max_ongoing_requests=GATEWAY_MAX_REQUESTS,
        # Every request passes through Ray's queue, so a lower limit would drop bursts.
        max_queued_requests=GATEWAY_MAX_REQUESTS,
        ray_actor_options={
            "num_cpus": 0,
            "resources": {HEAD_NODE: 0.001} if is_on_head else {},
            "runtime_env": environment,
        },
        graceful_shutdown_timeout_s=settings.timeout_s,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},
    )
    return gateway.bind(engine.bind())


class EngineReplica:
    """The application and its engine, in a process that Ray manages."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
        """Return once the model is loaded. Raises the error of loading, which `serve status` shows."""
        self._running = AsyncExitStack()
        self._is_loaded = False
        self._failures: list[Exception] = []
        settings = _replica_settings()
        self._app = build_app(settings, on_failure=self._note_failure)
        self._engine: AsyncEngine = self._app.state.service.engine
        await self._running.enter_async_context(self._app.router.lifespan_context(self._app))
        try:
            await self._engine.wait_loaded()
        except UnavailableError:
            raise self._failures[0] from None
        self._is_loaded = True

    async def answer(self, request: ForwardedRequest) -> AsyncGenerator[list[Message]]:
        """Yields the ASGI messages of one request. Cancelling it is a disconnect."""
        async with aclosing(answer(self._app, request)) as messages:
            async for together in messages:
                yield together

    async def answer_whole(self, request: ForwardedRequest) -> WholeAnswer:
        return await whole_answer(self._app, request, replica=serve.get_replica_context().replica_id.unique_id)

    def check_health(self) -> None:
        """Ray's periodic check. Raises once the engine has failed."""
        if not self._engine.is_healthy:
            raise RuntimeError("the engine has failed")

    async def __del__(self) -> None:
        """Ray awaits this after the last request, or after `__init__` has failed."""
        await self._running.aclose()

    def _note_failure(self, error: Exception) -> None:
        """Log one clear line. During loading Ray ends the process; later the process exits, and Ray starts another."""
        self._failures.append(error)
        exit_on_failure(os._exit if self._is_loaded else lambda _status: None)(error)


@serve.ingress()
class GatewayReplica:
    """The gateway, in a process that Ray manages."""

    def __init__(self, engine: DeploymentHandle) -> None:
        self._settings = read_settings()
        self._replicas = EngineReplicas(engine)

    def __serve_build_asgi_app__(self) -> Gateway:
        settings = self._settings
        return Gateway(
            replicas=self._replicas,
            protocols=PROTOCOLS,
            max_body_bytes=settings.max_body_bytes,
            uploads=Uploads(settings.max_uploads_bytes),
            body_timeout_s=settings.body_timeout_s,
            timeout_s=settings.timeout_s + DEADLINE_GRACE_S,
            root_path=settings.root_path,
            cors_origins=settings.cors_origins,
        )


class EngineReplicas:
    """The gateway's `Replicas`: Ray's handle, with Ray's errors mapped to ours."""

    def __init__(self, engine: DeploymentHandle) -> None:
        self._engine = engine
        self._stream = engine.options(stream=True, method_name="answer")

    async def ask(self, request: ForwardedRequest) -> AsyncGenerator[list[Message]]:
        response = self._stream.remote(request)
        try:
            async for messages in response:
                yield messages
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise _own_error(error) from error
        except RayTaskError:
            raise  # the replica is alive: this is a bug of ours
        except RayError as error:
            raise ReplicaLostError("the replica that had the request is gone; try again") from error
        except (GeneratorExit, CancelledError):
            response.cancel()  # only here: after another error, `cancel` would raise it again
            raise

    async def ask_all(self, request: ForwardedRequest) -> Sequence[WholeAnswer]:
        try:
            answers = await self._engine.broadcast("answer_whole", request).results_async(
                timeout_s=ASK_ALL_TIMEOUT_S, return_exceptions=True
            )
        except (DeploymentUnavailableError, TimeoutError) as error:
            raise _own_error(error) from error
        whole = [one for one in answers if isinstance(one, WholeAnswer)]
        if not whole:
            raise UnavailableError("no replica answers")
        return whole


def _own_error(error: Exception) -> UnavailableError:
    if isinstance(error, BackPressureError):
        return OverloadedError("the service is overloaded: all replicas are busy, and the queue is full")
    return UnavailableError("no replica can take the request now; try again later")


class PrefixRouter(RequestRouter):
    """Prefers the replica that last had the same prompt prefix, unless it is too busy; else the less busy of two.

    Ray's own prefix router keeps its prefixes in an actor, which costs every request two calls.
    """

    def initialize_state(self, max_lead: int = MAX_LEAD) -> None:
        """Ray passes `request_router_kwargs` here."""
        self._max_lead = max_lead
        self._memory = PrefixMemory()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of replicas, the best first. Ray takes a rank's least busy one, or the next rank if all are full."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # else Ray retries at once if all are full
        two = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        holder = self._memory.find(_prefixes(pending_request), by_name)
        if holder is None or self._lead(by_name[holder], candidate_replicas) > self._max_lead:
            return [two]
        return [[by_name[holder]], two]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: ReplicaResult,  # noqa: ARG002 - Ray's
    ) -> None:
        self._memory.note(_prefixes(pending_request), replica_id.unique_id)

    def _lead(self, replica: RunningReplica, others: list[RunningReplica]) -> int:
        """How many more requests it has in flight than the least busy one."""
        return self._num_requests(replica) - min(map(self._num_requests, others))

    def _num_requests(self, replica: RunningReplica) -> int:
        """As known to this router; 0 without recent information."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _prefixes(pending_request: PendingRequest | None) -> tuple[bytes, ...]:
    requests = pending_request.args if pending_request is not None else []
    return requests[0].prefixes if requests and isinstance(requests[0], ForwardedRequest) else ()


def _replica_settings() -> Settings:
    """The settings, with as many compute threads as Ray has assigned cores to this replica.

    Ray sets `OMP_NUM_THREADS`, which our kernels do not read: `auto` would take all cores, in each replica of a node.
    """
    settings = read_settings()
    if settings.num_threads is not None:
        return settings
    cores = get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    return Settings(num_threads=max(1, int(cores)))
