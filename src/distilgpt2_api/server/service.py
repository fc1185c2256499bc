"""The parts that every route works with, as a FastAPI dependency."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from distilgpt2_api.batch.store.ports import BatchService
from distilgpt2_api.core.sampling_defaults import NO_DEFAULTS, SamplingDefaults
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.observability.metrics_page import MetricsPage
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.generation.text_work import TextEncoder, TextQueue
from distilgpt2_api.server.http.errors import NotEnabledError, UnknownModelError
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.requests.body import Uploads
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.usage.key_usage import KeyUsage

PLACEHOLDER_NAMES = frozenset({"tgi", "dummy"})
"""The names that TGI's own client and InferenceClient send if the user gave none."""

URL_SCHEMES = ("http://", "https://")
"""`@huggingface/inference` sends the endpoint's URL as the model name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """The model and its names, as clients see them."""

    name: str
    """Its own name: the pulled model's, or its folder's."""
    precision: str
    created: int
    """When the service began to serve it: Unix time in seconds."""
    kernels: str
    """The kernel library and its version."""
    served_names: tuple[str, ...] = ()
    """The operator's names, which replace `name`."""

    @property
    def listed_names(self) -> tuple[str, ...]:
        """The names that clients see."""
        return self.served_names or (self.name,)

    @property
    def shown_name(self) -> str:
        """The name in responses."""
        return self.listed_names[0]

    def check_is_served(self, name: str) -> None:
        """Raises UnknownModelError for another model's name. Its own name may be shortened to the last segment."""
        is_short = not self.served_names and name == self.name.rpartition("/")[2]
        if name not in self.listed_names and not is_short:
            served = ", ".join(map(repr, self.listed_names))
            raise UnknownModelError(f"the model {name[:100]!r} does not exist here; served: {served}", param="model")

    def check_name(self, name: str | None) -> None:
        """Checks a request's model. Accepts no name, and placeholders of clients. Raises UnknownModelError."""
        if name and name not in PLACEHOLDER_NAMES and not name.startswith(URL_SCHEMES):
            self.check_is_served(name)


@dataclass(frozen=True, kw_only=True)
class Service:
    """The parts that `create_app` received. Has no slots, which `cached_property` does not allow."""

    version: str
    engine: AsyncEngine
    model: ServedModel
    limits: RequestLimits
    uploads: Uploads
    access: Access
    metrics_page: MetricsPage
    draw_seed: Callable[[], int]
    """Draws the seed of a request that has none."""
    clock: Callable[[], float]
    """Unix time, in seconds."""
    chat_template: ChatTemplate | None = None
    """None: chat is refused."""
    sampling_defaults: SamplingDefaults = NO_DEFAULTS
    """For parameters that a request leaves out."""
    batch_service: BatchService | None = None
    """None: files and batches are disabled."""
    usage: KeyUsage | None = None
    """None: there are no API keys whose usage could be counted."""
    text_queue: TextQueue = field(default_factory=TextQueue)

    def text_encoder(self, http: Request) -> TextEncoder:
        """The encoder for one request's texts."""
        return TextEncoder(self.engine.tokenizer, self.text_queue, http.is_disconnected)

    @cached_property
    def system_fingerprint(self) -> str:
        """Changes with everything that may change a seed's text: code, model, precision and kernels.

        It covers the model's name, config, tokenizer, chat template and sampling defaults, but not the values of its
        weights.
        """
        parts = (
            self.version,
            self.model.name,
            self.model.precision,
            self.model.kernels,
            repr(self.engine.model_config),
            self.engine.tokenizer.files.digest,
            "" if self.chat_template is None else self.chat_template.source,
            repr(self.sampling_defaults.as_dict()),
        )
        return f"fp_{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:10]}"


async def _service_of(request: Request) -> Service:
    # Async although it awaits nothing: FastAPI would run a plain function on a thread, for every request.
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(_service_of)]


async def _batch_service_of(service: ServiceDep) -> BatchService:
    if service.batch_service is None:
        raise NotEnabledError("files and batches are disabled; the setting batch_store enables them")
    return service.batch_service


BatchServiceDep = Annotated[BatchService, Depends(_batch_service_of)]


def owner_of(request: Request, service: Service) -> str:
    """The owner of a request's files and batches: its API key's name.

    Without keys all callers share them, because an address does not identify a caller for long.
    """
    return "" if service.access.is_open else request_record(request.scope).caller.name
