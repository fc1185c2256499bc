"""`POST /v1/score`: our own protocol, in OpenAI's style."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.generation.timings import Timings
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import CallerFields

TEXT_OR_IDS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 1},
    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
]
CONTEXT_OR_IDS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "array", "items": {"type": "integer", "minimum": 0}},
]
ITEMS: list[dict[str, Any]] = [
    *TEXT_OR_IDS,
    {
        "type": "object",
        "title": "Pair",
        "properties": {
            "context": {"description": "Not scored.", "anyOf": CONTEXT_OR_IDS},
            "continuation": {"description": "Scored. Text or token ids, like the context.", "anyOf": TEXT_OR_IDS},
        },
        "required": ["context", "continuation"],
        "additionalProperties": False,
    },
]
INPUT_SCHEMA: dict[str, Any] = {
    "title": "Input",
    "anyOf": [*ITEMS, {"type": "array", "minItems": 1, "items": {"anyOf": ITEMS}}],
    "examples": ["Once upon a time", {"context": "The sky is", "continuation": " blue"}],
}

ScoreInput = Annotated[Any, WithJsonSchema(INPUT_SCHEMA)]
"""Checked during tokenization: pydantic would try each branch of a union on a long list of ids."""


class ScoreRequest(CallerFields):
    """Null means the default, for every field but `input`."""

    input: ScoreInput = Field(
        ...,
        description="What to score: a text, token ids, a pair of context and continuation, or a list of such items. In "
        "a text every token is scored, the first one after an end-of-text token; in a pair, the continuation's tokens. "
        "White space at a context's end is scored with the continuation, as in lm-evaluation-harness.",
    )
    token_logprobs: bool | None = Field(None, description="Scores have `tokens`, `token_ids` and `token_logprobs`.")


class TextScore(DeferredModel):
    """The score of one item of `input`."""

    object: Literal["score"]
    index: int = Field(description="The item's index in `input`.")
    logprob: float = Field(description="Natural logarithm of the scored tokens' joint probability.")
    num_tokens: int = Field(description="Number of scored tokens.")
    num_bytes: int = Field(description="UTF-8 bytes of the scored tokens.")
    perplexity: float = Field(description="exp(-logprob / num_tokens).")
    bits_per_byte: float | None = Field(
        description="-logprob / ln 2 / num_bytes, comparable between tokenizers. Null if the tokens have no text."
    )
    is_greedy: bool = Field(description="Whether each token is the likeliest at its position, or equally likely.")
    tokens: list[str] | None = Field(None, description="The scored tokens. These three only with `token_logprobs`.")
    token_ids: list[int] | None = None
    token_logprobs: list[float] | None = None


class ScoredPromptTokensDetails(DeferredModel):
    cached_tokens: int = Field(description="Tokens of contexts that came from the prefix cache.")


class ScoreUsage(DeferredModel):
    prompt_tokens: int = Field(description="Including contexts and end-of-text tokens.")
    total_tokens: int
    prompt_tokens_details: ScoredPromptTokensDetails


class ScoreList(DeferredModel):
    """A list as in OpenAI's API: `data` has one object per item of `input`, in the same order."""

    object: Literal["list"]
    data: list[TextScore]
    model: str
    usage: ScoreUsage
    timings: Timings | None = Field(None, description="With `timings`.")
