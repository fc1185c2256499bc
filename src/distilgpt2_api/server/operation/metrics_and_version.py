"""`GET /metrics`, `GET /version` and `GET /robots.txt`."""

from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from distilgpt2_api.server.http.routing.paths import METRICS_PATH
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import ServiceDep


class Version(DeferredModel):
    version: str
    model: str
    precision: str
    kernels: str
    has_chat: bool = Field(description="The model has a chat template, so `/v1/chat/completions` is enabled.")
    has_batches: bool = Field(description="`/v1/files` and `/v1/batches` are enabled.")


router = checked_router("Operation")


@router.get(METRICS_PATH, summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def read_metrics(http: Request, service: ServiceDep) -> Response:
    page, content_type = service.metrics_page.render(http.headers.get("accept", ""))
    return Response(page, headers={"content-type": content_type})


@router.get("/version", summary="Version")
async def read_version(service: ServiceDep) -> Version:
    return Version(
        version=service.version,
        model=service.model.shown_name,
        precision=service.model.precision,
        kernels=service.model.kernels,
        has_chat=service.chat_template is not None,
        has_batches=service.batch_service is not None,
    )


@router.get("/robots.txt", include_in_schema=False)
async def read_robots() -> PlainTextResponse:
    """Disallows everything: every path that a crawler follows costs a completion."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")
