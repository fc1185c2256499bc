"""What every route works with, and how a route gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from distilgpt2_api.batch.store.ports import BatchService
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.observability.metrics_page import MetricsPage
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.generation.text_work import TextEncoder, TextQueue
from distilgpt2_api.server.http.body import Uploads
from distilgpt2_api.server.http.errors import NotEnabledError, UnknownModelError
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.request_record import record_of
from distilgpt2_api.text.chat_template import ChatTemplate

PLACEHOLDER_NAMES = frozenset({"tgi", "dummy"})
"""What TGI's own client and InferenceClient send where the protocol wants a name."""

URL_SCHEMES = ("http://", "https://")
"""`@huggingface/inference` sends the endpoint's URL as the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """The one model, as clients see it."""

    name: str
    """Its own: a pulled model's, or its folder's."""
    precision: str
    created: int
    """Unix time in seconds at which the service began to serve it."""
    kernels: str
    """What computes it, with its version."""
    served_names: tuple[str, ...] = ()
    """The names that the operator chose in place of `name`."""

    @property
    def listed_names(self) -> tuple[str, ...]:
        """The names that clients are told."""
        return self.served_names or (self.name,)

    @property
    def shown_name(self) -> str:
        """The name that answers have."""
        return self.listed_names[0]

    def find_name(self, name: str) -> None:
        """Raises UnknownModelError for a name that is not the model's. Its own may be shortened to the last part."""
        is_short = not self.served_names and name == self.name.rpartition("/")[2]
        if name not in self.listed_names and not is_short:
            served = ", ".join(map(repr, self.listed_names))
            raise UnknownModelError(f"the model {name[:100]!r} does not exist here; served: {served}", param="model")

    def check_name(self, name: str | None) -> None:
        """As `find_name`, of a request: without a name, or with a client's placeholder, it takes the served model."""
        if name and name not in PLACEHOLDER_NAMES and not name.startswith(URL_SCHEMES):
            self.find_name(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The parts that `create_app` was given."""

    version: str
    engine: AsyncEngine
    model: ServedModel
    limits: RequestLimits
    uploads: Uploads
    access: Access
    metrics_page: MetricsPage
    draw_seed: Callable[[], int]
    """For requests without a seed of their own."""
    clock: Callable[[], float]
    """Unix time, in seconds."""
    chat_template: ChatTemplate | None = None
    """Without one there is no chat."""
    batch_service: BatchService | None = None
    """Without one there are no files and no batches."""

    text_queue: TextQueue = field(default_factory=TextQueue)

    def text_encoder(self, http: Request) -> TextEncoder:
        """For the texts of a request."""
        return TextEncoder(self.engine.tokenizer, self.text_queue, http.is_disconnected)

    @property
    def system_fingerprint(self) -> str:
        """Changes with whatever may change the texts that a seed gives: code, model, precision and kernels. Of the
        model its name, its config with the end tokens, its tokenizer and the chat template; not its weights' values.
        """
        parts = (
            self.version,
            self.model.name,
            self.model.precision,
            self.model.kernels,
            repr(self.engine.model_config),
            self.engine.tokenizer.digest,
            "" if self.chat_template is None else self.chat_template.source,
        )
        return f"fp_{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:10]}"


async def _service_of(request: Request) -> Service:
    # Asynchronous though it waits for nothing: FastAPI would send a plain function to a thread, for every request.
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(_service_of)]


async def _batch_service_of(service: ServiceDep) -> BatchService:
    if service.batch_service is None:
        raise NotEnabledError("files and batches are switched off here: the setting batch_store switches them on")
    return service.batch_service


BatchServiceDep = Annotated[BatchService, Depends(_batch_service_of)]


def owner_of(request: Request, service: Service) -> str:
    """Whose files and batches a request is about: an API key's, by its name. Without keys all are everybody's, for an
    address is no lasting name.
    """
    return "" if service.access.is_open else record_of(request.scope).caller.name
