"""`POST /v1/completions`: OpenAI's `CreateCompletionRequest`, with the extras that vLLM's clients send."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from distilgpt2_api.server.generation.beam_options import MAX_LENGTH_PENALTY
from distilgpt2_api.server.generation.timings import Timings
from distilgpt2_api.server.protocols.openai.envelope import AnswerFields, Usage
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import SamplingFields, StopSequence


class Logprobs(DeferredModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Each token's offset in `text`, in characters.")


class PromptLogprob(DeferredModel):
    logprob: float
    rank: int | None = Field(description="1 is the likeliest. Null for a token outside the listed ones.")
    decoded_token: str


class Choice(DeferredModel):
    index: int = Field(description="The prompt's index times n, plus the completion's.")
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None = Field(
        description="In a stream, null before the choice's last chunk."
    )
    stop_reason: str | int | None = Field(
        None, description="The stop sequence or stop token id that ended it. In a stream: in the choice's last chunk."
    )
    token_ids: list[int] | None = Field(
        None, description="With `return_token_ids`: of the completion, or of the chunk."
    )
    prompt_token_ids: list[int] | None = Field(
        None, description="With `return_token_ids`. In a stream: in the choice's first chunk."
    )
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = Field(
        None, description="With `prompt_logprobs`: by token id, for each prompt token; null for the first."
    )


class Completion(AnswerFields):
    """OpenAI's `CreateCompletionResponse`. In a stream each event is one, except the last, `[DONE]`."""

    object: Literal["text_completion"]
    choices: list[Choice]
    usage: Usage | None = None
    timings: Timings | None = Field(None, description="With `timings`. In a stream: in the last chunk.")


PROMPT_SCHEMA: dict[str, Any] = {
    "title": "Prompt",
    "description": "A text, a list of texts, a list of token ids or a list of such lists. Null: the end-of-text token.",
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
"""Checked during tokenization: pydantic would try each branch of a union on a long list of ids."""

DEFAULT_MAX_TOKENS = 16
MaxTokens = Annotated[int, Field(ge=0, le=2**31)]
PromptLength = Annotated[int, Field(ge=1, le=2**31)]
TruncatedLength = Literal[-1] | PromptLength
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/+=@-]{1,128}$")]


class CompletionRequest(SamplingFields):
    """Null means the default, for every field."""

    aliases: ClassVar[Mapping[str, str]] = {
        "max_completion_tokens": "max_tokens",
        "max_new_tokens": "max_tokens",
        "return_full_text": "echo",
        "stop_sequences": "stop",
        "truncate": "truncate_prompt_tokens",
    }

    prompt: Prompt = None
    max_tokens: MaxTokens | None = Field(
        None, description=f"{DEFAULT_MAX_TOKENS} by default. 0 with `echo` scores the prompt."
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Completions sampled per prompt. The answer has the `n` with the highest mean log-probability per "
        "token; usage counts all. Above `n`, not with `stream`. With `use_beam_search`: the number of beams.",
    )
    use_beam_search: bool | None = Field(
        None,
        description="Beam search instead of sampling: the `n` best sequences found with `best_of` beams, best first. "
        "Not with `stream`, nor with sampling parameters: `top_p`, `stop`, penalties and others are refused. `seed` "
        "has no effect.",
    )
    length_penalty: float | None = Field(
        None,
        ge=-MAX_LENGTH_PENALTY,
        le=MAX_LENGTH_PENALTY,
        description="With `use_beam_search`, a sequence's log-probability is divided by its length to this power. "
        "Values above 0 favour long sequences. 1 by default.",
    )
    early_stopping: Literal["never"] | bool | None = Field(
        None,
        description="When `use_beam_search` stops after as many sequences as beams have ended. `true`: at once. "
        '`false`, the default: when no live beam is better at its current length. `"never"`: when none can become '
        "better.",
    )
    echo: bool | None = Field(None, description="The text begins with the prompt.")
    logprobs: int | None = Field(None, ge=0, description="Number of likeliest tokens listed for each sampled token.")
    prompt_logprobs: int | None = Field(
        None, ge=0, description="Number of likeliest tokens listed for each prompt token. Not with `stream`."
    )
    return_token_ids: bool | None = Field(None, description="Choices have `token_ids` and `prompt_token_ids`.")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="`logprobs` shows tokens as `token_id:123` instead of text."
    )
    add_special_tokens: bool | None = Field(
        None,
        description="Adds the special tokens that the tokenizer's files want around a text, such as BOS. GPT-2's files "
        "want none.",
    )
    truncate_prompt_tokens: TruncatedLength | None = Field(
        None, description="Tokens of each prompt to keep. -1: as many as leave room for `max_tokens`."
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="The side that is cut off. `left`, the default, keeps the prompt's end."
    )
    max_completion_tokens: MaxTokens | None = Field(
        None, description="Another name of `max_tokens`, from OpenAI's chat."
    )
    max_new_tokens: MaxTokens | None = Field(None, description="TGI's name of `max_tokens`.")
    return_full_text: bool | None = Field(None, description="TGI's name of `echo`.")
    stop_sequences: list[StopSequence] | None = Field(None, description="Hugging Face's name of `stop`.")
    truncate: PromptLength | None = Field(None, description="TGI's name of `truncate_prompt_tokens`.")
    request_id: RequestId | None = Field(None, description="The answer's `id` is `cmpl-` followed by this.")

    @property
    def num_sequences(self) -> int:
        """Completions sampled of each prompt, or beams."""
        return self.best_of or self.num_choices
