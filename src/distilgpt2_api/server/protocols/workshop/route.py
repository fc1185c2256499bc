"""The workshop's routes: a health check at the root, and every other path is a prompt."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes

import orjson
from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.core.seeds import choose_seed
from distilgpt2_api.engine.validation import check_context_length
from distilgpt2_api.server.generation.answers import json_answer
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.plan import plan_generation
from distilgpt2_api.server.generation.prompts import encode_texts
from distilgpt2_api.server.generation.sampling_params import check_at_most, plain_params
from distilgpt2_api.server.http.requests.accept import wants_page
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.paths import raw_path_of, without_root
from distilgpt2_api.server.http.routing.protocol import Protocol, Protocols
from distilgpt2_api.server.pages.playground import read_page
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.workshop.addresses import is_address
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.documented_route import DocumentedRoute
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.schema.sampling import SEED_DESCRIPTION, plain_field
from distilgpt2_api.server.service import ServiceDep


class GeneratedSequences(DeferredModel):
    generated_sequences: list[str] = Field(description="Each begins with the prompt.")


class Health(DeferredModel):
    health: Literal["ok"]
    version: str
    model: str


PROMPT_DESCRIPTION = (
    "The text to continue, percent-encoded UTF-8. It may contain slashes. Without white space it must not look like an "
    "address (`docs/api.md`)."
)
MODIFYING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""A client that sends these means another route. It gets 404, not 405: TGI's clients expect that."""


DEFAULTS = SamplingDefaults.parse({"top_k": 50})
"""The workshop's, where they differ from the neutral values."""


class GenerateQuery(BaseModel):
    """Unknown names are refused, so that a typo does not silently give the default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=False)

    max_new_tokens: int = Field(50, ge=1, le=2**31, description="Maximum number of tokens after the prompt.")
    num_return_sequences: int = Field(1, ge=1, le=128)
    temperature: float = plain_field("temperature", 1.0)
    top_k: int = plain_field("top_k", DEFAULTS.params["top_k"])
    top_p: float = plain_field("top_p", 1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description=SEED_DESCRIPTION)


class PromptRoute(DocumentedRoute):
    """Matches every path that is no address and has no other route. The prompt is the path as the client sent it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["path"] in {"", "/"} or scope["method"] in MODIFYING_METHODS:
            return Match.NONE, {}
        prompt, has_slash = _prompt_of(scope)
        protocols: Protocols = scope["app"].state.protocols
        if is_address(prompt, has_slash=has_slash, trees=protocols.trees) or self._is_taken(scope):
            return Match.NONE, {}
        child_scope = {"endpoint": self.endpoint, "route": self, "path_params": {"prompt": prompt}}
        return (Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL), child_scope

    def _is_taken(self, scope: Scope) -> bool:
        others = (route for route in scope["app"].routes if route is not self)
        return any(route.matches(scope)[0] is not Match.NONE for route in others)


router = checked_router("Workshop")


@router.get("/", summary="Health", response_model=Health, name="read_health")
async def read_root(http: Request, service: ServiceDep, response: Response) -> Health | Response:
    """Reports that the process answers; `/readyz` reports whether the model is loaded. Browsers get the playground."""
    if wants_page(http.scope):
        return await read_page(http)
    response.headers["vary"] = "accept"
    return Health(health="ok", version=service.version, model=service.model.shown_name)


async def generate_text(
    http: Request,
    service: ServiceDep,
    prompt: Annotated[str, Path(description=PROMPT_DESCRIPTION, examples=["Once upon a time"])],
    query: Annotated[GenerateQuery, Query()],
) -> Response:
    """Continue a prompt, sampled. Each generated sequence begins with the prompt."""
    check_at_most(query.num_return_sequences, service.limits.max_n, param="num_return_sequences")
    engine = service.engine
    record = request_record(http.scope)
    prompts = await encode_texts([prompt], encoder=service.text_encoder(http), config=engine.model_config)
    num_prompt_tokens = record.num_prompt_tokens = len(prompts[0].token_ids)
    defaults = service.sampling_defaults
    max_tokens = query.max_new_tokens
    if "max_new_tokens" not in query.model_fields_set:
        max_tokens = defaults.limit(max_tokens, engine.model_config.num_positions - num_prompt_tokens)
    check_context_length(num_prompt_tokens, max_tokens, engine.model_config, param="max_new_tokens")
    sent = SimpleNamespace(**query.model_dump(exclude_unset=True))
    params = SamplingParams(
        **plain_params(sent, engine.model_config, defaults.over(DEFAULTS)),
        max_tokens=max_tokens,
        seed=choose_seed(query.seed, service.draw_seed),
    )
    plan = plan_generation(
        prompts,
        params,
        num_sequences=query.num_return_sequences,
        is_streamed=False,
        deadline_s=service.limits.timeout_s,
    )
    return json_answer(plan.run(engine, record), TextsWriter(prompt, num_texts=query.num_return_sequences))


router.add_api_route(
    "/{prompt}",
    generate_text,
    methods=["GET"],
    summary="Continue a prompt",
    response_model=GeneratedSequences,
    responses=OPENAI_ERRORS.responses(400, 404, 429, 500, 503, 504),
    route_class_override=PromptRoute,
)


class TextsWriter:
    """Mutable: one request's texts. Each begins with the prompt."""

    def __init__(self, prompt: str, *, num_texts: int) -> None:
        self._texts = [prompt] * num_texts

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        for _, deltas in update:
            for delta in deltas:
                self._texts[delta.index] += delta.text

    def body(self) -> bytes:
        """The whole answer."""
        return orjson.dumps({"generated_sequences": self._texts})


def _prompt_of(scope: Scope) -> tuple[str, bool]:
    """The path without its first slash, and whether it has another plain slash.

    Reads `raw_path`: `path` does not distinguish an encoded slash from a plain one, and loses invalid UTF-8, which
    becomes lone surrogates here. Validation refuses those.
    """
    raw_path, root_path = raw_path_of(scope), scope.get("root_path", "")
    path = unquote_to_bytes(raw_path).decode(errors="surrogateescape")
    below_root = without_root(path, root_path)
    num_slashes = raw_path.count(b"/") - (root_path.count("/") if below_root != path else 0)
    return below_root.removeprefix("/"), num_slashes > 1


WORKSHOP = Protocol(routes=router.routes, errors=OPENAI_ERRORS)
