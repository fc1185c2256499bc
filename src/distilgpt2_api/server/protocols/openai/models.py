"""`GET /v1/models`: the served model, under each of its names."""

from typing import Any, Literal

from pydantic import Field

from distilgpt2_api.core.errors import NotReadyError, UnavailableError
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import Service, ServiceDep


class ServedModelCard(DeferredModel):
    """OpenAI's `Model`, with vLLM's `max_model_len`: null while the model loads."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    max_model_len: int | None
    generation_config: dict[str, Any] = Field(
        description="The service's own defaults of parameters that a request leaves out."
    )


class ServedModelList(DeferredModel):
    object: Literal["list"] = "list"
    data: list[ServedModelCard]


router = checked_router("OpenAI")


@router.get("/v1/models", summary="List models")
async def list_models(service: ServiceDep) -> ServedModelList:
    """The served model, under each of its names. It is also listed while it loads."""
    return ServedModelList(data=[_card(service, name) for name in service.model.listed_names])


@router.get("/v1/models/{model:path}", summary="Describe a model", responses=OPENAI_ERRORS.responses(404))
async def read_model(service: ServiceDep, model: str) -> ServedModelCard:
    """The served model, by its name or alias."""
    service.model.check_is_served(model)
    return _card(service, model)


def _card(service: Service, name: str) -> ServedModelCard:
    try:
        max_model_len = service.engine.model_config.num_positions
    except (NotReadyError, UnavailableError):
        max_model_len = None
    return ServedModelCard(
        id=name,
        created=service.model.created,
        owned_by="distilgpt2-api",
        root=service.model.name,
        max_model_len=max_model_len,
        generation_config=service.sampling_defaults.as_dict(),
    )
