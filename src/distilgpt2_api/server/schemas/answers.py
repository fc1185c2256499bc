"""Bodies of answers, for the OpenAPI document and for the small ones that pydantic may write."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from distilgpt2_api.server.schemas.validation import Body


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


class TokenizeRequest(Body):
    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = Field(None, description="GPT-2's tokenizer adds none either way.")
    return_token_strs: bool | None = None


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Body):
    model: str | None = None
    tokens: list[int]


class DetokenizeResponse(BaseModel):
    prompt: str


class TokenizerInfo(BaseModel):
    """What a `tokenizer_config.json` says, as vLLM has it; lm-evaluation-harness reads the special tokens."""

    tokenizer_class: Literal["GPT2Tokenizer"] = "GPT2Tokenizer"
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    add_bos_token: Literal[False] = False
    add_prefix_space: Literal[False] = False
    chat_template: str | None = None


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
