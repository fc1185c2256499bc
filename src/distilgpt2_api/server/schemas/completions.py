"""`POST /v1/completions`: OpenAI's `CreateCompletionRequest`, with the extras that vLLM's clients send."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.schemas.sampling import NEUTRAL_VALUES, SamplingFields, drop_neutral
from distilgpt2_api.server.schemas.validation import validate_body

PROMPT_SCHEMA: dict[str, Any] = {
    "title": "Prompt",
    "description": "A text, a list of texts, a list of token ids or a list of such lists. Null: the end of text token.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
        },
        {"type": "null"},
    ],
}

Prompt = Annotated[Any, WithJsonSchema(PROMPT_SCHEMA)]
"""Checked where it is tokenized: as a union, pydantic would try a long list of ids four times."""


class CompletionRequest(SamplingFields):
    """Null means the default, for every field."""

    prompt: Prompt = None
    max_tokens: int | None = Field(None, ge=0, le=2**31, description="16 by default. 0 with `echo` scores the prompt.")
    echo: bool | None = Field(None, description="The prompt stands before the completion.")
    logprobs: int | None = Field(None, ge=0, description="Likeliest tokens listed for each token drawn.")


COMPLETION_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = NEUTRAL_VALUES | {
    "best_of": (1,),
    "suffix": ("",),
    "add_special_tokens": (True, False),
}
"""`add_special_tokens` is here because GPT-2's tokenizer adds none either way."""


def parse_completion_request(body: dict[str, object]) -> CompletionRequest:
    """Raises InvalidRequestError; its kind UnsupportedParameterError for what peers have and we do not."""
    neutral_values = COMPLETION_NEUTRAL_VALUES | {"best_of": (1, body.get("n") or 1)}
    return validate_body(CompletionRequest, drop_neutral(body, neutral_values))
