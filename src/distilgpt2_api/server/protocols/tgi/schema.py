"""Bodies of Hugging Face's Text Generation Inference (TGI) 3, as `huggingface_hub.InferenceClient` uses them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.engine.validation import MAX_STOP_BYTES
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import StopSequence, plain_field
from distilgpt2_api.server.schema.structured import TGI_GRAMMAR
from distilgpt2_api.server.schema.validation import Body, OnlyFalse, OnlyTrue

SHAPES = ("temperature", "top_k", "top_p", "typical_p")
"""Parameters that sample if they are set."""
Unsupported = Annotated[None, Field(description="Not supported.")]


class TgiParameters(Body):
    """Null means the default, for every field. Samples if `do_sample` is true or a sampling parameter is set."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"watermark", "adapter_id"})

    best_of: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Sequences sampled; the answer is the one with the highest mean log-probability per token. "
        "More than 1 requires sampling, without `seed` and not as a stream.",
    )
    temperature: float | None = Field(None, gt=0, le=100, description="1 by default. Setting it samples.")
    repetition_penalty: float | None = plain_field("repetition_penalty")
    frequency_penalty: float | None = plain_field("frequency_penalty")
    top_k: int | None = Field(None, gt=0, le=2**31 - 1, description="Off by default. Setting it samples.")
    top_p: float | None = Field(None, gt=0, lt=1, description="Off by default. Setting it samples.")
    typical_p: float | None = Field(None, gt=0, lt=1, description="Off by default. Setting it samples.")
    do_sample: bool | None = Field(
        None, description="False, which is greedy, by default; but true if a request has no `parameters` at all."
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=2**31, description="By default 1024, or the rest of the model's context if that is less."
    )
    return_full_text: bool | None = Field(
        None, description="The generated text begins with the prompt. False by default, on every route."
    )
    stop: list[StopSequence] | None = Field(
        None,
        description="The text ends with the first of them, which is part of it. At most "
        f"{MAX_STOP_BYTES} bytes in total.",
    )
    truncate: int | None = Field(None, ge=1, le=2**31, description="Number of the prompt's last tokens to use.")
    watermark: OnlyFalse | None = Field(None, description="Not supported.")
    details: bool | None = Field(None, description="The answer has `details`.")
    decoder_input_details: bool | None = Field(
        None, description="`details` with the prompt's tokens in `prefill`. Not as a stream."
    )
    seed: int | None = Field(
        None, ge=-1, le=2**64 - 1, description="The same seed samples the same text. -1, an extension: no seed."
    )
    top_n_tokens: int | None = Field(
        None, ge=0, le=100, description="Number of likeliest tokens listed for each sampled token."
    )
    grammar: Annotated[Any, WithJsonSchema(TGI_GRAMMAR)] = Field(
        None, description="A JSON schema, or a regular expression, that the whole text must match."
    )
    adapter_id: Unsupported = None

    @property
    def num_sequences(self) -> int:
        return self.best_of or 1

    def is_sampled(self, defaults: SamplingDefaults) -> bool:
        """Without `do_sample`, a default of the service samples as a parameter of the request does."""
        if any(getattr(self, name) is not None for name in SHAPES):
            return True
        is_greedy = defaults.params.get("temperature") == 0
        if self is DEFAULT_PARAMETERS:
            return not is_greedy
        if self.do_sample is not None:
            return self.do_sample
        return not is_greedy and any(name in defaults.params for name in SHAPES)

    @property
    def has_details(self) -> bool:
        return bool(self.details or self.decoder_input_details)


DEFAULT_PARAMETERS = TgiParameters.model_validate({"do_sample": True})
"""Parameters of a request without `parameters`: TGI samples then, but not if they are an empty object."""


class TgiOptions(Body):
    """Options of Hugging Face's hosted service, without effect: the model is always loaded, and no answer is cached."""

    use_cache: bool | None = Field(None, description="No effect: answers are not cached.")
    wait_for_model: bool | None = Field(None, description="No effect: the model is loaded.")
    dont_load_model: bool | None = Field(None, description="No effect: the model is loaded.")
    use_gpu: OnlyFalse | None = Field(None, description="Not supported.")


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
        raise ValueError("/generate does not stream; send the request to /generate_stream or to the base URL")
    return value


class TgiWholeRequest(TgiRequest):
    """TGI's `GenerateRequest`, answered with one body."""

    stream: Annotated[OnlyFalse, BeforeValidator(_check_whole)] | None = None


class TgiStreamRequest(TgiRequest):
    """TGI's `GenerateRequest`, answered with a stream."""

    stream: OnlyTrue | None = None

    @property
    def is_streamed(self) -> bool:
        return True


class TgiInfo(DeferredModel):
    model_id: str
    model_sha: str | None
    model_pipeline_tag: Literal["text-generation"]
    max_concurrent_requests: int = Field(description="Requests that the queue holds; one more is refused with 429.")
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int = Field(description="Of prompt and generated text together: the model's context.")
    validation_workers: int
    max_client_batch_size: int = Field(description="Prompts in one request, in protocols that allow several.")
    router: str
    version: str
    sha: str | None
    docker_label: str | None


class TgiToken(DeferredModel):
    id: int
    text: str = Field(
        description="The token's part of the text. A character of several tokens belongs to the last of them."
    )
    logprob: float = Field(description="Under the model, before temperature and other parameters.")
    special: bool = Field(description="Not part of the text, like the end-of-text token.")


class TgiPrefillToken(DeferredModel):
    id: int
    text: str
    logprob: float | None = Field(description="Null for the first.")


FinishReason = Literal["length", "eos_token", "stop_sequence"]


class TgiSequence(DeferredModel):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None = Field(description="A request for one sequence with this seed samples it again. Null if greedy.")
    prefill: list[TgiPrefillToken] = Field(description="Empty without `decoder_input_details`.")
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] = Field([], description="For each of `tokens`. With `top_n_tokens`.")


class TgiBestOfSequence(TgiSequence):
    generated_text: str


class TgiDetails(TgiSequence):
    best_of_sequences: list[TgiBestOfSequence] | None = Field(None, description="The others, with `best_of`.")


class TgiAnswer(DeferredModel):
    """TGI's `GenerateResponse`."""

    generated_text: str
    details: TgiDetails | None = Field(None, description="With `details` or `decoder_input_details`.")


class TgiStreamDetails(DeferredModel):
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int = Field(description="The prompt's tokens.")


class TgiStreamEvent(DeferredModel):
    """TGI's `StreamResponse`: one per token."""

    index: int = Field(description="From 1.")
    token: TgiToken
    top_tokens: list[TgiToken] = Field([], description="With `top_n_tokens`.")
    generated_text: str | None = Field(description="The whole text, in the last event.")
    details: TgiStreamDetails | None = Field(description="In the last event, with `details`.")
