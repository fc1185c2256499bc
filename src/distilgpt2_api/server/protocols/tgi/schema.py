"""Bodies of Hugging Face's Text Generation Inference (TGI) 3, which `huggingface_hub.InferenceClient` speaks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from distilgpt2_api.engine.validation import MAX_STOP_BYTES
from distilgpt2_api.server.schema.sampling import StopSequence, plain_field
from distilgpt2_api.server.schema.structured import TGI_GRAMMAR
from distilgpt2_api.server.schema.validation import Body, OnlyFalse, OnlyTrue

Unsupported = Annotated[None, Field(description="Not supported.")]


class TgiParameters(Body):
    """Null means the default, for every field. Sampled where `do_sample` is true or a field of the draw is set."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"watermark", "adapter_id"})

    best_of: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Sequences drawn, of which the one with the highest mean log-probability per token is answered. "
        "More than one: sampled, without `seed` and not as a stream.",
    )
    temperature: float | None = Field(None, gt=0, le=100, description="1 by default. Setting it samples.")
    repetition_penalty: float | None = plain_field("repetition_penalty")
    frequency_penalty: float | None = plain_field("frequency_penalty")
    top_k: int | None = Field(None, gt=0, le=2**31 - 1, description="Off by default. Setting it samples.")
    top_p: float | None = Field(None, gt=0, lt=1, description="Off by default. Setting it samples.")
    typical_p: float | None = Field(None, gt=0, lt=1, description="Off by default. Setting it samples.")
    do_sample: bool | None = Field(
        None, description="False, greedy, by default; but true where a request has no `parameters` at all."
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=2**31, description="1024 by default, or what the prompt leaves of the model's context if less."
    )
    return_full_text: bool | None = Field(
        None, description="The prompt stands before the generated text. False by default, on every route."
    )
    stop: list[StopSequence] | None = Field(
        None,
        description="The text ends with the first of them, which is part of it. At most "
        f"{MAX_STOP_BYTES} bytes together.",
    )
    truncate: int | None = Field(None, ge=1, le=2**31, description="Only so many of the prompt's last tokens are used.")
    watermark: OnlyFalse | None = Field(None, description="Not supported.")
    details: bool | None = Field(None, description="The answer has `details`.")
    decoder_input_details: bool | None = Field(
        None, description="`details` with the prompt's tokens in `prefill`. Not as a stream."
    )
    seed: int | None = Field(
        None, ge=-1, le=2**64 - 1, description="The same seed draws the same text. -1, which TGI lacks: no seed."
    )
    top_n_tokens: int | None = Field(None, ge=0, le=100, description="Likeliest tokens listed for each token drawn.")
    grammar: Annotated[Any, WithJsonSchema(TGI_GRAMMAR)] = Field(
        None, description="What the text must be: of a JSON schema, or all of it matching a regular expression."
    )
    adapter_id: Unsupported = None

    @property
    def num_sequences(self) -> int:
        return self.best_of or 1

    @property
    def is_sampled(self) -> bool:
        values = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return bool(self.do_sample) or any(value is not None for value in values)

    @property
    def has_details(self) -> bool:
        return bool(self.details or self.decoder_input_details)


DEFAULT_PARAMETERS = TgiParameters.model_validate({"do_sample": True})
"""Of a request that has no parameters at all: TGI samples then, though not if they are empty."""


class TgiOptions(Body):
    """What Hugging Face's hosted service has beside TGI. The model is always loaded, and no answer is cached."""

    use_cache: bool | None = Field(None, description="No answer is cached, whatever it says.")
    wait_for_model: bool | None = Field(None, description="The model is loaded, whatever it says.")
    dont_load_model: bool | None = Field(None, description="The model is loaded, whatever it says.")
    use_gpu: OnlyFalse | None = Field(None, description="There is none.")


class TgiRequest(Body):
    """TGI's `CompatGenerateRequest`."""

    inputs: str = Field(min_length=1, description="The prompt.")
    parameters: TgiParameters | None = None
    options: TgiOptions | None = None
    stream: bool | None = Field(None, description="False by default.")

    @property
    def own_parameters(self) -> TgiParameters:
        return DEFAULT_PARAMETERS if self.parameters is None else self.parameters

    @property
    def is_streamed(self) -> bool:
        return bool(self.stream)


def _check_whole(value: object) -> object:
    if value is True:
        raise ValueError("an answer here is whole; ask /generate_stream, or the address without /generate")
    return value


class TgiWholeRequest(TgiRequest):
    """TGI's `GenerateRequest`, answered as a whole."""

    stream: Annotated[OnlyFalse, BeforeValidator(_check_whole)] | None = None


class TgiStreamRequest(TgiRequest):
    """TGI's `GenerateRequest`, answered as a stream."""

    stream: OnlyTrue | None = None

    @property
    def is_streamed(self) -> bool:
        return True


class TgiInfo(BaseModel):
    model_id: str
    model_sha: str | None
    model_pipeline_tag: Literal["text-generation"]
    max_concurrent_requests: int = Field(description="Requests that may wait; one more is refused with 429.")
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int = Field(description="Of a prompt and what is generated: the model's context.")
    validation_workers: int
    max_client_batch_size: int = Field(description="Prompts of one request, in the protocols that have several.")
    router: str
    version: str
    sha: str | None
    docker_label: str | None


class TgiToken(BaseModel):
    id: int
    text: str = Field(
        description="What it adds to the text. A character of several tokens comes with the last of them."
    )
    logprob: float = Field(description="Under the model, before temperature and all else.")
    special: bool = Field(description="Not part of the text: the end of text, for one.")


class TgiPrefillToken(BaseModel):
    id: int
    text: str
    logprob: float | None = Field(description="Null for the first.")


FinishReason = Literal["length", "eos_token", "stop_sequence"]


class TgiBestOfSequence(BaseModel):
    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None = Field(description="Alone, it draws this sequence again. Null where it was not sampled.")
    prefill: list[TgiPrefillToken] = Field(description="Empty without `decoder_input_details`.")
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] = Field([], description="For each of `tokens`. With `top_n_tokens`.")


class TgiDetails(BaseModel):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None = Field(description="Draws the same text again. Null where it was not sampled.")
    prefill: list[TgiPrefillToken] = Field(description="Empty without `decoder_input_details`.")
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] = Field([], description="For each of `tokens`. With `top_n_tokens`.")
    best_of_sequences: list[TgiBestOfSequence] | None = Field(None, description="The others, with `best_of`.")


class TgiAnswer(BaseModel):
    """TGI's `GenerateResponse`."""

    generated_text: str
    details: TgiDetails | None = Field(None, description="With `details` or `decoder_input_details`.")


class TgiStreamDetails(BaseModel):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int = Field(description="The prompt's tokens.")


class TgiStreamEvent(BaseModel):
    """TGI's `StreamResponse`: one for each token."""

    index: int = Field(description="From 1.")
    token: TgiToken
    top_tokens: list[TgiToken] = Field([], description="With `top_n_tokens`.")
    generated_text: str | None = Field(description="The whole, in the last event.")
    details: TgiStreamDetails | None = Field(description="In the last event, with `details`.")
