"""Bodies of `/api/generate` and `/api/chat`, as in Ollama's `api/types.go`."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from distilgpt2_api.core.params import MAX_COUNT, PLAIN_PARAMETERS
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.engine.validation import MAX_STOP_BYTES
from distilgpt2_api.server.schema.chat_prompt import MESSAGES_SCHEMA
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import (
    MAX_TOKEN_IDS,
    SEED_DESCRIPTION,
    StopSequence,
    TokenId,
    plain_field,
    shared_fields,
)
from distilgpt2_api.server.schema.structured import JSON_SCHEMA
from distilgpt2_api.server.schema.validation import Body

DEFAULTS = SamplingDefaults.parse({"temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_last_n": 64})
"""Ollama's, where they differ from the neutral values."""
ZERO_DURATION = re.compile(r"[^1-9]*")


LLAMA_SAMPLERS = ("dry", "top_n_sigma", "temperature", "xtc")
"""Samplers that Ollama's options lack, in whole or in part, and llama.cpp has."""


class OllamaOptions(shared_fields("ollama_options", *LLAMA_SAMPLERS)):  # type: ignore[misc]  # the register's fields, which mypy can't see
    """Null means the default, for every option."""

    num_predict: int | None = Field(
        None,
        ge=-2,
        le=2**31,
        description="Maximum completion tokens. -1, the default, and -2: as many as the context has room for. A larger "
        "number than that means the same.",
    )
    num_ctx: int | None = Field(
        None,
        ge=1,
        le=2**31,
        description="Maximum tokens of prompt and completion together. By default, and at most, the model's context.",
    )
    temperature: float | None = Field(None, ge=0, le=100, description=PLAIN_PARAMETERS["temperature"].description)
    top_k: int | None = Field(
        None, ge=-1, le=MAX_COUNT, description=f"{PLAIN_PARAMETERS['top_k'].description} -1 too, as in llama.cpp."
    )
    repeat_penalty: float | None = plain_field("repetition_penalty")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description=SEED_DESCRIPTION)
    stop: list[StopSequence] | None = Field(
        None, description=f"The completion ends before the first of them. At most {MAX_STOP_BYTES} bytes in total."
    )


NO_OPTIONS = OllamaOptions()

DURATION: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "not": {"const": 0}},
        {"type": "string", "pattern": r"^-?([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,8}$"},
        {"type": "null"},
    ]
}
DURATION_TEXT = re.compile(r"-?([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,8}|0")
"""Go's notation, such as `5m` and `1h30m`."""

FORMAT: dict[str, Any] = {
    "anyOf": [{"enum": ["json", ""]}, JSON_SCHEMA, {"type": "null"}],
}


class OllamaRequest(Body):
    """Fields of generations and chats. Null means the default."""

    model: str | None = Field(
        None, description="A name of the served model, with or without the tag `:latest`. Empty: the served model."
    )
    stream: bool | None = Field(None, description="False: one JSON object instead of a line for each piece.")
    format: Annotated[Any, WithJsonSchema(FORMAT)] = Field(
        None,
        description='`"json"` for any JSON object, or a JSON schema. Objects have no additional properties '
        "unless it allows them.",
    )
    options: OllamaOptions | None = None
    logprobs: bool | None = Field(None, description="Return log-probabilities of the sampled tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="Number of likeliest tokens listed for each sampled token. Requires `logprobs`."
    )
    keep_alive: Annotated[Any, WithJsonSchema(DURATION)] = Field(
        None,
        description="How long the model stays loaded: it always is, so any time but 0 is accepted. Seconds, or a text "
        "such as `5m`.",
    )

    @property
    def is_streamed(self) -> bool:
        return self.stream is not False

    @property
    def own_options(self) -> OllamaOptions:
        return self.options or NO_OPTIONS

    @property
    def num_logprobs(self) -> int | None:
        """Number of likeliest tokens listed for each sampled token. None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class OllamaGenerateRequest(OllamaRequest):
    """Ollama's `GenerateRequest`. Null means the default."""

    prompt: str | None = Field(
        None,
        description="Without `raw`, a model with a chat template reads it as a user's message. An empty prompt only "
        "checks that the model is loaded.",
    )
    system: str | None = Field(None, description="A system message, for models with a chat template.")
    raw: bool | None = Field(
        None,
        description="The model continues `prompt` as it is, without its chat template. The answer has no `context`.",
    )
    context: list[TokenId] | None = Field(
        None, max_length=MAX_TOKEN_IDS, description="The `context` of an earlier answer: the prompt continues it."
    )


class OllamaChatRequest(OllamaRequest):
    """Ollama's `ChatRequest`, for models with a chat template. Null means the default."""

    messages: Annotated[Any, WithJsonSchema({"anyOf": [{**MESSAGES_SCHEMA, "minItems": 0}, {"type": "null"}]})] = Field(
        None,
        description="If the last one is the assistant's, the answer continues it. Without any, the request only checks "
        "that the model is loaded.",
    )


class OllamaToken(DeferredModel):
    token: str
    logprob: float
    bytes: list[int]


class OllamaLogprob(OllamaToken):
    top_logprobs: list[OllamaToken]


class OllamaAnswer(DeferredModel):
    """Fields of generations and chats: of the answer or of a line. Times are nanoseconds."""

    model: str
    created_at: str = Field(description="UTC, as in RFC 3339.")
    done: bool = Field(description="In a stream: true in the last line.")
    done_reason: Literal["stop", "length", "load"] | None = Field(None, description="With `done`.")
    total_duration: int | None = Field(None, description="With `done`: from the request's admission to its end.")
    load_duration: int | None = Field(None, description="With `done`: the time in the queue. The model is loaded.")
    prompt_eval_count: int | None = Field(None, description="With `done`: tokens of the prompt.")
    prompt_eval_duration: int | None = Field(None, description="With `done`: from the queue to the first token.")
    eval_count: int | None = Field(None, description="With `done`: tokens of the completion.")
    eval_duration: int | None = Field(None, description="With `done`: from the first token to the last.")
    logprobs: list[OllamaLogprob] | None = Field(None, description="With `logprobs` in the request.")


class OllamaGeneration(OllamaAnswer):
    """Ollama's `GenerateResponse`, and each line of a stream."""

    response: str
    context: list[int] | None = Field(
        None, description="With `done`, unless the request is `raw`: token ids of prompt and completion."
    )


class OllamaMessage(DeferredModel):
    role: Literal["assistant"]
    content: str


class OllamaChat(OllamaAnswer):
    """Ollama's `ChatResponse`, and each line of a stream."""

    message: OllamaMessage
