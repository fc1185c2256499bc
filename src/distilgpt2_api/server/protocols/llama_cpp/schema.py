"""Bodies of `POST /completion`, as in llama.cpp's `tools/server`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from distilgpt2_api.core.params import MAX_COUNT, PLAIN_PARAMETERS
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.engine.validation import MAX_STOP_BYTES
from distilgpt2_api.server.generation.timings import PromptProgress, Timings
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import SEED_DESCRIPTION, StopSequence, plain_field, shared_fields
from distilgpt2_api.server.schema.structured import JSON_SCHEMA, NULL

DEFAULTS = SamplingDefaults.parse({"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_last_n": 64})
"""llama.cpp's, where they differ from the neutral values."""
MAX_FIELDS = 64

_PART: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}
_TEXT_OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["prompt_string"],
    "properties": {"prompt_string": {"type": "string", "minLength": 1}, "multimodal_data": {"maxItems": 0}},
    "additionalProperties": False,
}
_ONE: list[dict[str, Any]] = [
    {"type": "string", "minLength": 1},
    _TEXT_OBJECT,
    {"type": "array", "minItems": 1, "items": _PART},
]
PROMPT_SCHEMA: dict[str, Any] = {
    "title": "Prompt",
    "description": "A text, a list of token ids and texts that make one prompt, or a list of prompts.",
    "anyOf": [*_ONE, {"type": "array", "minItems": 1, "items": {"anyOf": _ONE}}],
}
_BIAS: dict[str, Any] = {"anyOf": [{"type": "number", "minimum": -100, "maximum": 100}, {"const": False}]}
BIAS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": {"type": "array", "prefixItems": [_PART, _BIAS], "minItems": 2, "maxItems": 2}},
        {"type": "object", "additionalProperties": _BIAS},
        NULL,
    ]
}


class LlamaCompletionRequest(shared_fields("llama_cpp")):  # type: ignore[misc]  # the register's fields, which mypy can't see
    """Null means the default, for every field but `prompt`."""

    aliases: ClassVar[Mapping[str, str]] = {"max_tokens": "n_predict", "n": "n_cmpl"}

    prompt: Annotated[Any, WithJsonSchema(PROMPT_SCHEMA)]
    model: str | None = Field(None, description="A name of the served model. Empty: the served model.")
    n_predict: int | None = Field(
        None,
        ge=-1,
        le=2**31,
        description="Maximum completion tokens. -1, the default: as many as the context has room for. A larger number "
        "than that means the same.",
    )
    max_tokens: int | None = Field(None, ge=-1, le=2**31, description="OpenAI's name of `n_predict`.")
    n_cmpl: int | None = Field(None, ge=1, le=128, description="Completions per prompt.")
    n: int | None = Field(None, ge=1, le=128, description="OpenAI's name of `n_cmpl`.")
    stream: bool | None = Field(None, description="Answer with events.")
    temperature: float | None = Field(None, ge=0, le=100, description=PLAIN_PARAMETERS["temperature"].description)
    top_k: int | None = Field(None, ge=-1, le=MAX_COUNT, description=f"{PLAIN_PARAMETERS['top_k'].description} -1 too.")
    repeat_penalty: float | None = plain_field("repetition_penalty")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description=SEED_DESCRIPTION)
    stop: StopSequence | list[StopSequence] | None = Field(
        None, description=f"The completion ends before the first of them. At most {MAX_STOP_BYTES} bytes in total."
    )
    logit_bias: Annotated[Any, WithJsonSchema(BIAS_SCHEMA)] = Field(
        None,
        description="Pairs of a token id or a text and the bias of that token, or of each of the text's tokens: a list "
        "or an object. False bans the token.",
    )
    json_schema: Annotated[Any, WithJsonSchema({"anyOf": [JSON_SCHEMA, NULL]})] = Field(
        None, description="A JSON schema. Objects have no additional properties unless it allows them."
    )
    grammar: str | None = Field(None, description="A grammar in GBNF. Not with `json_schema`.")
    n_probs: int | None = Field(None, ge=0, description="Number of likeliest tokens listed for each sampled token.")
    return_tokens: bool | None = Field(None, description="The answer has `tokens`. The events of a stream always do.")
    timings_per_token: bool | None = Field(
        None, description="Each event of a stream has `timings`, as measured where the event is written."
    )
    return_progress: bool | None = Field(
        None, description="The first event of each prompt in a stream has `prompt_progress`: all of it is computed."
    )
    response_fields: list[str] | None = Field(
        None,
        max_length=MAX_FIELDS,
        description="Fields of the answer; all others are left out. `generation_settings/seed` is a field of a field.",
    )
    id_slot: int | None = Field(
        None,
        ge=-1,
        le=2**31,
        description="No effect: every request shares the prefix cache, and none waits for a slot.",
    )

    @property
    def num_sequences(self) -> int:
        return self.n_cmpl or 1

    @property
    def stop_sequences(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class LlamaToken(DeferredModel):
    id: int
    token: str
    bytes: list[int]
    logprob: float


class LlamaProbability(LlamaToken):
    top_logprobs: list[LlamaToken]


class LlamaChunk(DeferredModel):
    """Each event of a stream but a completion's last one."""

    index: int = Field(description="The prompt's index times `n_cmpl`, plus the completion's.")
    content: str
    tokens: list[int]
    stop: Literal[False]
    id_slot: int
    tokens_predicted: int
    tokens_evaluated: int
    timings: Timings | None = Field(None, description="With `timings_per_token`.")
    prompt_progress: PromptProgress | None = Field(None, description="With `return_progress`.")
    completion_probabilities: list[LlamaProbability] | None = Field(None, description="With `n_probs`.")


class LlamaCompletion(DeferredModel):
    """A completion, and its last event in a stream. With `response_fields` it has only those."""

    model_config = ConfigDict(extra="allow")

    index: int | None = None
    content: str | None = Field(None, description="Empty in a stream.")
    tokens: list[int] | None = Field(None, description="Empty without `return_tokens`, and in a stream.")
    id_slot: int | None = None
    stop: Literal[True] | None = None
    model: str | None = None
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = Field(None, description="The prompt's tokens.")
    generation_settings: dict[str, Any] | None = Field(None, description="The parameters that were used.")
    prompt: str | None = Field(None, description="The text of the prompt's tokens.")
    has_new_line: bool | None = None
    truncated: bool | None = Field(None, description="The context is full, and more tokens were allowed.")
    stop_type: Literal["eos", "word", "limit"] | None = None
    stopping_word: str | None = Field(None, description="The stop sequence that ended it, or empty.")
    tokens_cached: int | None = Field(None, description="Tokens of the prompt that came from the prefix cache.")
    timings: Timings | None = None
    completion_probabilities: list[LlamaProbability] | None = Field(
        None, description="With `n_probs`, except in a stream."
    )


class LlamaSlotSettings(DeferredModel):
    n_ctx: int
    params: dict[str, Any]


class LlamaModalities(DeferredModel):
    vision: Literal[False] = False
    audio: Literal[False] = False


class LlamaProps(DeferredModel):
    model_config = ConfigDict(protected_namespaces=())

    default_generation_settings: LlamaSlotSettings
    total_slots: int = Field(description="Sequences that run at the same time, at most.")
    model_alias: str
    model_path: str = Field(description="The model's own name, not a path.")
    modalities: LlamaModalities = LlamaModalities()
    chat_template: str = Field(description="In Jinja. Empty without one.")
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: Literal[False] = False


class LlamaSlot(DeferredModel):
    """A slot of the batch. It tells nothing of the request that it runs."""

    id: int
    n_ctx: int
    is_processing: bool
