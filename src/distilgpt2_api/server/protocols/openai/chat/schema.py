"""`POST /v1/chat/completions`: OpenAI's `CreateChatCompletionRequest`, with the extras that vLLM's clients send."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from distilgpt2_api.core.errors import UnsupportedParameterError
from distilgpt2_api.server.generation.timings import PromptProgress, Timings
from distilgpt2_api.server.protocols.openai.envelope import AnswerFields, Usage
from distilgpt2_api.server.schema.chat_prompt import ChatPromptFields
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import SamplingFields
from distilgpt2_api.server.schema.validation import parse_body


class ChatCompletionRequest(ChatPromptFields, SamplingFields):
    """Null means the default, for every field but `messages`."""

    aliases: ClassVar[Mapping[str, str]] = {"max_tokens": "max_completion_tokens"}

    max_completion_tokens: int | None = Field(
        None, ge=1, le=2**31, description="By default, as many as the model's context has room for."
    )
    max_tokens: int | None = Field(None, ge=1, le=2**31, description="The older name of `max_completion_tokens`.")
    logprobs: bool | None = Field(None, description="Return log-probabilities of the sampled tokens.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="Number of likeliest tokens listed for each sampled token. Requires `logprobs`."
    )

    timings_per_token: bool | None = Field(
        None,
        description="Each chunk of a stream has `timings`, as measured where it is written, and the answer those of "
        "`timings`. llama.cpp's web client sends it.",
    )
    return_progress: bool | None = Field(
        None,
        description="A stream's first chunk has no choices but `prompt_progress`, when the prompt is computed. "
        "llama.cpp's web client sends it.",
    )

    @property
    def num_logprobs(self) -> int | None:
        """Number of likeliest tokens listed for each sampled token. None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


def parse_chat_request(body: dict[str, object]) -> ChatCompletionRequest:
    """Raises InvalidRequestError, UnsupportedParameterError for parameters that only the reference APIs have."""
    if body.get("chat_template") is not None:
        raise UnsupportedParameterError(
            "chat_template is not supported in requests; the template comes with the model or from a setting",
            param="chat_template",
        )
    return parse_body(ChatCompletionRequest, body)


class TopLogprob(DeferredModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(DeferredModel):
    content: list[TokenLogprob]
    refusal: None


class ChatAnswer(DeferredModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(DeferredModel):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None = Field(description="The stop sequence or stop token id that ended it.")


class ChatCompletion(AnswerFields):
    """OpenAI's `CreateChatCompletionResponse`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings | None = Field(None, description="With `timings`.")


class ChatDelta(DeferredModel):
    role: Literal["assistant"] | None = Field(None, description="In a choice's first chunk.")
    content: str | None = Field(None, description="Absent from a choice's last chunk.")


class ChatChunkChoice(DeferredModel):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None = Field(description="Null in all but a choice's last chunk.")
    stop_reason: str | int | None = Field(None, description="In a choice's last chunk.")


class ChatCompletionChunk(AnswerFields):
    """OpenAI's `CreateChatCompletionStreamResponse`: each event of a stream, except the last, `[DONE]`."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    timings: Timings | None = Field(
        None, description="With `timings`, in the last chunk; with `timings_per_token`, in every one."
    )
    prompt_progress: PromptProgress | None = Field(None, description="With `return_progress`, in the first chunk.")
