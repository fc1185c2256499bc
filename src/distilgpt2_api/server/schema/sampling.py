"""What requests for completions and for chat have in common: how to draw, and how to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, create_model

from distilgpt2_api.core.caller import LOWEST_PRIORITY
from distilgpt2_api.core.params import MAX_COUNT, PLAIN_PARAMETERS
from distilgpt2_api.engine.validation import MAX_STOP_BYTES
from distilgpt2_api.server.schema.structured import StructuredFields
from distilgpt2_api.server.schema.validation import Body

TokenId = Annotated[int, Field(ge=0, le=2**31)]
StopSequence = Annotated[str, Field(min_length=1)]
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
BadWord = Annotated[str, Field(min_length=1, max_length=256)]

MAX_BAD_WORDS_BYTES = 8192
"""Of all bad words of a request together. Each is tokenized twice, and looked for at every token."""
MAX_TOKEN_IDS = 1 << 16
"""In one list: more than GPT-2's vocabulary of 50 257 has."""
BOUNDS: Mapping[str, Mapping[str, int]] = {"top_k": {"ge": -1, "le": MAX_COUNT}}
"""In place of the register's. vLLM's and llama.cpp's clients switch top-k off with -1."""
SEED_DESCRIPTION = (
    "The same seed draws the same text. -1: no seed, as in vLLM and llama.cpp; other negative numbers are seeds."
)


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk without choices brings the usage.")
    continuous_usage_stats: bool | None = Field(
        None, description="With `include_usage`: every chunk brings the usage so far."
    )


def plain_field(name: str, default: object = None, **bounds: Any) -> Any:
    """A parameter's field, with the register's description, and its bounds unless others are given."""
    entry = PLAIN_PARAMETERS[name]
    if not bounds and entry.maximum is not None:
        bounds = {"gt" if entry.excludes_minimum else "ge": entry.minimum, "le": entry.maximum}
    return Field(default, description=entry.description, **bounds)


_plain_fields: dict[str, Any] = {
    name: (entry.type | None, plain_field(name)) for name, entry in PLAIN_PARAMETERS.items()
}
PlainFields: Any = create_model("PlainFields", __base__=StructuredFields, __module__=__name__, **_plain_fields)
"""The register's plain parameters; null means the neutral value."""


class SamplingFields(PlainFields):  # type: ignore[misc]  # its fields are the register's, which mypy can't see
    """Null means the default, for every field."""

    model: str | None = Field(
        None,
        description="A name of the served model (setting `served_model_names`). Empty, `tgi`, `dummy` or a URL, which "
        "clients of servers with one model send: the served model too.",
    )
    n: int | None = Field(None, ge=1, le=128, description="Completions of each prompt.")
    top_k: int | None = Field(
        None,
        ge=-1,
        le=MAX_COUNT,
        description=f"{PLAIN_PARAMETERS['top_k'].description} -1 too, as in vLLM and llama.cpp.",
    )
    logit_bias: dict[TokenIdText, Bias] | None = Field(None, description="Token ids, as strings, to biases.")
    bad_words: list[BadWord] | None = Field(
        None,
        max_length=256,
        description="Texts that the completion must not have, at its beginning or after a space. At most "
        f"{MAX_BAD_WORDS_BYTES} bytes together.",
    )
    allowed_token_ids: list[TokenId] | None = Field(
        None, min_length=1, max_length=MAX_TOKEN_IDS, description="Nothing else is drawn."
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description=SEED_DESCRIPTION)
    stop: StopSequence | list[StopSequence] | None = Field(
        None, description=f"The completion ends before the first of them. At most {MAX_STOP_BYTES} bytes together."
    )
    stop_token_ids: list[TokenId] | None = Field(
        None, max_length=MAX_TOKEN_IDS, description="Tokens that end the completion, beside the model's end of text."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = Field(
        None,
        ge=LOWEST_PRIORITY,
        lt=2**31,
        description="Lower is served earlier. Below 0 only with a key whose `min_priority` allows it.",
    )
    do_sample: bool | None = Field(
        None,
        description="False is greedy, unless `temperature`, `top_k`, `top_p` or `typical_p` is set, as in TGI.",
    )
    timeout_s: float | None = Field(None, gt=0, description="Seconds, queue included; then the request fails.")
    user: str | None = Field(None, description="Logged as a hash.")

    @property
    def num_choices(self) -> int:
        """Completions that the answer has for each prompt."""
        return self.n or 1

    @property
    def has_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def has_usage_in_chunks(self) -> bool:
        return self.has_usage_chunk and bool(self.stream_options and self.stream_options.continuous_usage_stats)
