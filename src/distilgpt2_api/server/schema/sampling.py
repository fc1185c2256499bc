"""The fields that completion and chat requests share: how to sample, and how to answer."""

from typing import Annotated, Any

from pydantic import Field, create_model

from distilgpt2_api.core.caller import LOWEST_PRIORITY
from distilgpt2_api.core.params import MAX_COUNT, PLAIN_PARAMETERS, SAMPLERS
from distilgpt2_api.engine.validation import MAX_BREAKER_BYTES, MAX_STOP_BYTES
from distilgpt2_api.server.schema.reference_apis import REFERENCE_APIS
from distilgpt2_api.server.schema.structured import StructuredFields
from distilgpt2_api.server.schema.validation import Body

TokenId = Annotated[int, Field(ge=0, le=2**31)]
StopSequence = Annotated[str, Field(min_length=1)]
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
BadWord = Annotated[str, Field(min_length=1, max_length=256)]

MAX_BAD_WORDS_BYTES = 8192
"""Over all bad words of a request. Each is tokenized twice, and compared at every token."""
MAX_TOKEN_IDS = 1 << 16
"""In one list: more than GPT-2's vocabulary of 50 257."""
SEED_DESCRIPTION = (
    "The same seed samples the same text. -1 means no seed, as in vLLM and llama.cpp; other negative numbers are seeds."
)


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk without choices has the usage.")
    continuous_usage_stats: bool | None = Field(
        None, description="With `include_usage`: every chunk has the usage so far."
    )


def plain_field(name: str, default: object = None, **bounds: Any) -> Any:
    """A parameter's field, with the register's description and, unless `bounds` replace them, its bounds."""
    entry = PLAIN_PARAMETERS[name]
    if not bounds and entry.maximum is not None:
        bounds = {"gt" if entry.excludes_minimum else "ge": entry.minimum, "le": entry.maximum}
    document: dict[str, Any] | None = {"enum": [*entry.choices, None]} if entry.choices else None
    return Field(default, description=entry.description, json_schema_extra=document, **bounds)


class BreakerFields(Body):
    """The field of DRY's that is no number."""

    dry_sequence_breakers: list[Annotated[str, Field(min_length=1, max_length=40)]] | None = Field(
        None,
        max_length=32,
        description=f"Texts that DRY's repetitions never span. At most {MAX_BREAKER_BYTES} bytes in total.",
    )

    @property
    def breakers(self) -> tuple[str, ...] | None:
        return None if self.dry_sequence_breakers is None else tuple(self.dry_sequence_breakers)


def shared_fields(api: str, *samplers: str) -> Any:
    """A body with the register's plain parameters that a reference API has under the same name, or that belong to one
    of these samplers.
    """
    others = {name for sampler in samplers for name in SAMPLERS[sampler]}
    names = PLAIN_PARAMETERS.keys() & (set(REFERENCE_APIS[api].parameters) | others)
    fields: dict[str, Any] = {
        name: (entry.type | None, plain_field(name)) for name, entry in PLAIN_PARAMETERS.items() if name in names
    }
    return create_model(f"SharedWith_{api}", __base__=BreakerFields, __module__=__name__, **fields)


_plain_fields: dict[str, Any] = {
    name: (entry.type | None, plain_field(name)) for name, entry in PLAIN_PARAMETERS.items()
}
PlainFields: Any = create_model("PlainFields", __base__=StructuredFields, __module__=__name__, **_plain_fields)
"""The register's plain parameters. Null means the neutral value."""


class CallerFields(Body):
    """Fields of every request for engine work, except TGI's."""

    model: str | None = Field(
        None,
        description="A name of the served model (setting `served_model_names`). An empty name, `tgi`, `dummy` or a "
        "URL, which clients of single-model servers send, also means the served model.",
    )
    priority: int | None = Field(
        None,
        ge=LOWEST_PRIORITY,
        lt=2**31,
        description="Lower is served earlier. Values below 0 require a key with a `min_priority` that allows them.",
    )
    timeout_s: float | None = Field(
        None, gt=0, description="Time limit in seconds, including the queue. After it the request fails."
    )
    timings: bool | None = Field(None, description="The answer has `timings`. In a stream: its last chunk.")
    user: str | None = Field(None, description="Logged as a hash.")


class SamplingFields(PlainFields, CallerFields, BreakerFields):  # type: ignore[misc]  # the register's fields, which mypy can't see
    """Null means the default, for every field."""

    n: int | None = Field(None, ge=1, le=128, description="Completions per prompt.")
    top_k: int | None = Field(
        None,
        ge=-1,
        le=MAX_COUNT,
        description=f"{PLAIN_PARAMETERS['top_k'].description} -1 too, as in vLLM and llama.cpp.",
    )
    logit_bias: dict[TokenIdText, Bias] | None = Field(None, description="Biases by token id; the ids are strings.")
    bad_words: list[BadWord] | None = Field(
        None,
        max_length=256,
        description="Texts that must not occur at the completion's beginning or after a space. At most "
        f"{MAX_BAD_WORDS_BYTES} bytes in total.",
    )
    allowed_token_ids: list[TokenId] | None = Field(
        None, min_length=1, max_length=MAX_TOKEN_IDS, description="No other token is sampled."
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description=SEED_DESCRIPTION)
    stop: StopSequence | list[StopSequence] | None = Field(
        None, description=f"The completion ends before the first of them. At most {MAX_STOP_BYTES} bytes in total."
    )
    stop_token_ids: list[TokenId] | None = Field(
        None,
        max_length=MAX_TOKEN_IDS,
        description="Tokens that end the completion, besides the model's end-of-text token.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    do_sample: bool | None = Field(
        None,
        description="False means greedy, unless `temperature`, `top_k`, `top_p` or `typical_p` is set, as in TGI.",
    )

    @property
    def num_choices(self) -> int:
        """The answer's completions per prompt."""
        return self.n or 1

    @property
    def has_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def has_usage_in_chunks(self) -> bool:
        return self.has_usage_chunk and bool(self.stream_options and self.stream_options.continuous_usage_stats)
