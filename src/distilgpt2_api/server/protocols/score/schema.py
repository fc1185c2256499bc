"""`POST /v1/score`: a protocol of our own, in OpenAI's style."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from distilgpt2_api.core.caller import LOWEST_PRIORITY
from distilgpt2_api.server.schema.validation import Body

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
            "context": {"description": "Given, not scored.", "anyOf": CONTEXT_OR_IDS},
            "continuation": {"description": "Scored. Text or token ids, as the context.", "anyOf": TEXT_OR_IDS},
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
"""Checked where it is tokenized: as a union, pydantic would try a long list of ids many times."""


class ScoreRequest(Body):
    """Null means the default, for every field but `input`."""

    model: str | None = None
    input: ScoreInput = Field(
        ...,
        description="What to score: a text, token ids, a pair of context and continuation, or a list of such items. Of "
        "a text every token is scored, the first one after the end of text token; of a pair the continuation's tokens. "
        "White space at a context's end is scored with the continuation, as lm-evaluation-harness does it.",
    )
    token_logprobs: bool | None = Field(None, description="Scores have `tokens`, `token_ids` and `token_logprobs`.")
    timeout_s: float | None = Field(None, gt=0, description="Seconds, queue included; then the request fails.")
    priority: int | None = Field(
        None,
        ge=LOWEST_PRIORITY,
        lt=2**31,
        description="Lower is served earlier. Below 0 only with a key whose `min_priority` allows it.",
    )
    user: str | None = Field(None, description="Logged as a hash.")


class TextScore(BaseModel):
    """The model's opinion of one item of `input`."""

    object: Literal["score"]
    index: int = Field(description="Of the item.")
    logprob: float = Field(description="Natural logarithm of the scored tokens' joint probability.")
    num_tokens: int = Field(description="Tokens scored.")
    num_bytes: int = Field(description="UTF-8 bytes of the tokens scored.")
    perplexity: float = Field(description="e to -logprob / num_tokens.")
    bits_per_byte: float | None = Field(
        description="-logprob / ln 2 / num_bytes: comparable between tokenizers. Null where the tokens have no text."
    )
    is_greedy: bool = Field(description="Each token is the likeliest at its place, or as likely.")
    tokens: list[str] | None = Field(None, description="Tokens scored. With `token_logprobs` only, as the next two.")
    token_ids: list[int] | None = None
    token_logprobs: list[float] | None = None


class ScoredPromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Of contexts, from the prefix cache.")


class ScoreUsage(BaseModel):
    prompt_tokens: int = Field(description="Contexts and end of text tokens included.")
    total_tokens: int
    prompt_tokens_details: ScoredPromptTokensDetails


class ScoreList(BaseModel):
    """As OpenAI's lists are: `data` has one object for each item of `input`, in its order."""

    object: Literal["list"]
    data: list[TextScore]
    model: str
    usage: ScoreUsage
