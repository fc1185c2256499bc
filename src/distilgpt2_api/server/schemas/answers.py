"""Bodies of answers, for the OpenAPI document and for the small ones that pydantic may write."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Logprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Where each token begins in `text`, in characters.")


class PromptLogprob(BaseModel):
    logprob: float
    rank: int | None = Field(description="1 is the likeliest; null for a token that is not among those listed.")
    decoded_token: str


class Choice(BaseModel):
    index: int = Field(description="Prompt's index times n, plus the completion's.")
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None = Field(description="Null in all but a stream's last chunk.")
    stop_reason: str | int | None = Field(
        None, description="The stop sequence or stop token id that ended it. In a stream: in the last chunk."
    )
    token_ids: list[int] | None = Field(None, description="With `return_token_ids`: the completion's, or the chunk's.")
    prompt_token_ids: list[int] | None = Field(
        None, description="With `return_token_ids`. In a stream: in the choice's first chunk."
    )
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = Field(
        None, description="With `prompt_logprobs`: by token id, for each prompt token; null for the first."
    )


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Completion(BaseModel):
    """OpenAI's `CreateCompletionResponse`; in a stream each event is one, and the last one is `[DONE]`."""

    id: str
    object: Literal["text_completion"]
    created: int = Field(description="Unix time, in seconds.")
    model: str
    system_fingerprint: str = Field(description="Changes with code, model, precision or kernels.")
    choices: list[Choice]
    usage: Usage | None = None


class ServedModelCard(BaseModel):
    """OpenAI's `Model`, and `max_model_len` as vLLM has it: null while the model loads."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    max_model_len: int | None


class ServedModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ServedModelCard]


class GeneratedSequences(BaseModel):
    generated_sequences: list[str] = Field(description="Each begins with the prompt.")


class Health(BaseModel):
    health: Literal["ok"]
    version: str
    model: str


class Probe(BaseModel):
    status: Literal["ok", "ready", "loading", "draining", "failed", "stopped"]


class Version(BaseModel):
    version: str
    model: str
    precision: str
    kernels: str
