"""Ollama's descriptions of the model: `/api/tags`, `/api/show`, `/api/ps`, and `/api/version`."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import UnavailableError
from distilgpt2_api.core.sampling_defaults import MAX_TOKENS, SamplingDefaults
from distilgpt2_api.model.architectures.registry import count_weights
from distilgpt2_api.model.memory_check import WEIGHT_BYTES
from distilgpt2_api.server.http.requests.body import read_json_object
from distilgpt2_api.server.protocols.ollama.errors import OLLAMA_ERRORS
from distilgpt2_api.server.protocols.ollama.plan import LATEST, check_model
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.openapi_fragments import json_body
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.validation import Body, OnlyFalse, parse_body
from distilgpt2_api.server.service import Service, ServiceDep

FOREVER = "9999-12-31T23:59:59Z"
"""The model is never unloaded."""


class OllamaModelDetails(DeferredModel):
    parent_model: Literal[""] = ""
    format: Literal["safetensors"] = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(DeferredModel):
    name: str
    model: str
    modified_at: str = Field(description="When the service began to serve the model.")
    size: int = Field(description="Bytes of the weights in memory.")
    digest: str = Field(description="Changes with the code, model, precision or kernels. It is not Ollama's.")
    details: OllamaModelDetails


class OllamaModels(DeferredModel):
    models: list[OllamaModel]


class OllamaRunningModel(OllamaModel):
    expires_at: str = Field(description="Never: the model stays loaded.")
    size_vram: int = Field(description="0: the model runs on the processor.")
    context_length: int


class OllamaRunningModels(DeferredModel):
    models: list[OllamaRunningModel]


class OllamaShowRequest(Body):
    aliases: ClassVar[Mapping[str, str]] = {"name": "model"}

    model: str | None = Field(None, description="A name of the served model. Empty: the served model.")
    name: str | None = Field(None, description="The older name of `model`.")
    verbose: OnlyFalse | None = Field(None, description="Not supported: the answer has no tensors and no vocabulary.")


class OllamaShowAnswer(DeferredModel):
    model_config = ConfigDict(protected_namespaces=())

    modelfile: str = Field(description="Empty: this service has no Modelfile.")
    parameters: str = Field(description="The service's own defaults, a line each. For others, requests have Ollama's.")
    template: str = Field(description="The model's chat template, in Jinja. Empty without one.")
    details: OllamaModelDetails
    model_info: dict[str, str | int]
    capabilities: list[Literal["completion"]]
    modified_at: str


class OllamaVersion(DeferredModel):
    version: str = Field(description="This service's, not Ollama's.")


router = checked_router("Ollama")


@router.get("/api/tags", summary="List models", responses=OLLAMA_ERRORS.responses(503))
async def list_tags(service: ServiceDep) -> OllamaModels:
    """The served model, under each of its names."""
    config = service.engine.model_config
    return OllamaModels(models=[OllamaModel(**_describe(service, config, name)) for name in service.model.listed_names])


@router.get("/api/ps", summary="List running models")
async def list_running(service: ServiceDep) -> OllamaRunningModels:
    """The served model. None while it loads."""
    try:
        config = service.engine.model_config
    except UnavailableError:
        return OllamaRunningModels(models=[])
    described = _describe(service, config, service.model.shown_name)
    running = OllamaRunningModel(**described, expires_at=FOREVER, size_vram=0, context_length=config.num_positions)
    return OllamaRunningModels(models=[running])


@router.post(
    "/api/show",
    summary="Describe a model",
    responses=OLLAMA_ERRORS.responses(400, 404, 408, 413, 415, 429, 503),
    openapi_extra=json_body(OllamaShowRequest),
)
async def show_model(http: Request, service: ServiceDep) -> OllamaShowAnswer:
    """The served model's shape and chat template."""
    request = parse_body(OllamaShowRequest, await read_json_object(http, service.limits, service.uploads))
    check_model(request.model, service)
    config = service.engine.model_config
    family = config.model_type
    return OllamaShowAnswer(
        modelfile="",
        parameters=_parameters(service.sampling_defaults),
        template="" if service.chat_template is None else service.chat_template.source,
        details=_details(service, config),
        model_info={
            "general.architecture": family,
            "general.parameter_count": count_weights(config),
            f"{family}.context_length": config.num_positions,
            f"{family}.embedding_length": config.width,
            f"{family}.block_count": config.num_layers,
            f"{family}.feed_forward_length": config.inner_width,
            f"{family}.attention.head_count": config.num_heads,
            f"{family}.vocab_size": config.vocab_size,
        },
        capabilities=["completion"],
        modified_at=_modified_at(service),
    )


@router.get("/api/version", summary="Report the version")
async def read_version(service: ServiceDep) -> OllamaVersion:
    """This service's version."""
    return OllamaVersion(version=service.version)


def _describe(service: Service, config: ModelConfig, name: str) -> dict[str, Any]:
    tagged = name if ":" in name.rpartition("/")[2] else name + LATEST
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": _modified_at(service),
        "size": count_weights(config) * WEIGHT_BYTES[Precision(service.model.precision)],
        "digest": hashlib.sha256(service.system_fingerprint.encode()).hexdigest(),
        "details": _details(service, config),
    }


def _details(service: Service, config: ModelConfig) -> OllamaModelDetails:
    return OllamaModelDetails(
        family=config.model_type,
        families=[config.model_type],
        parameter_size=_short_count(count_weights(config)),
        quantization_level=service.model.precision.upper(),
    )


def _parameters(defaults: SamplingDefaults) -> str:
    names = {"repetition_penalty": "repeat_penalty", MAX_TOKENS: "num_predict"}
    return "\n".join(f"{names.get(name, name)} {value}" for name, value in defaults.as_dict().items())


def _modified_at(service: Service) -> str:
    return datetime.fromtimestamp(service.model.created, UTC).isoformat().replace("+00:00", "Z")


def _short_count(count: int) -> str:
    """As Ollama writes it: `81.9M`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
