"""Liveness and readiness probes, which are polled often. Neither uses the model."""

from http import HTTPStatus
from typing import Literal

from starlette.responses import Response

from distilgpt2_api.engine.async_engine import EngineState
from distilgpt2_api.server.http.routing.paths import LIVENESS_PATH, READINESS_PATHS
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import ServiceDep


class Probe(DeferredModel):
    status: Literal["ok", "ready", "loading", "draining", "failed", "stopped"]


async def read_liveness(service: ServiceDep, response: Response) -> Probe:
    """503 once the engine has failed: only a restart helps."""
    if not service.engine.is_healthy:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Probe(status="failed")
    return Probe(status="ok")


async def read_readiness(service: ServiceDep, response: Response) -> Probe:
    """200 while the model is loaded and the service is not shutting down."""
    state = service.engine.state
    if state is not EngineState.READY:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["retry-after"] = "1"
    return Probe(status=state.value)


router = checked_router("Operation")
for path, endpoint, summary in (
    (LIVENESS_PATH, read_liveness, "Is the process alive?"),
    *((path, read_readiness, "Can it take requests?") for path in READINESS_PATHS),
):
    router.add_api_route(
        path, endpoint, summary=summary, name=path[1:], responses={503: {"model": Probe, "description": "Not now."}}
    )
