"""From a completion request's fields to the engine's sampling parameters."""

from __future__ import annotations

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.server.schemas.completions import CompletionRequest
from distilgpt2_api.server.service import RequestLimits

DEFAULT_MAX_TOKENS = 16
MIN_TOP_P = 1e-6
"""0 is legal in OpenAI's specification and means what the smallest value does: the likeliest token only."""


def check_limits(request: CompletionRequest, limits: RequestLimits) -> None:
    """What fits the specification, but not this service. Raises InvalidRequestError."""
    if (request.n or 1) > limits.max_n:
        raise InvalidRequestError(f"n: at most {limits.max_n} here", param="n")
    if (request.logprobs or 0) > limits.max_logprobs:
        raise InvalidRequestError(f"logprobs: at most {limits.max_logprobs} here", param="logprobs")
    if len(_stop_sequences(request)) > limits.max_stop_sequences:
        raise InvalidRequestError(f"stop: at most {limits.max_stop_sequences} sequences here", param="stop")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options: only with stream", param="stream_options")


def sampling_params(request: CompletionRequest, *, config: ModelConfig, seed: int) -> SamplingParams:
    """`seed` is for requests without one. Raises InvalidRequestError."""
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    min_tokens = request.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidRequestError(f"min_tokens: at most max_tokens ({max_tokens})", param="min_tokens")
    stop_token_ids = tuple(request.stop_token_ids or ())
    if stop_token_ids and max(stop_token_ids) >= config.vocab_size:
        raise InvalidRequestError(
            f"stop_token_ids: {max(stop_token_ids)} is outside the vocabulary: 0 to {config.vocab_size - 1}",
            param="stop_token_ids",
        )
    top_k = request.top_k or 0
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_or_default(request.temperature, 1.0),
        top_k=top_k if 0 < top_k < config.vocab_size else 0,
        top_p=max(_or_default(request.top_p, 1.0), MIN_TOP_P),
        min_p=_or_default(request.min_p, 0.0),
        presence_penalty=_or_default(request.presence_penalty, 0.0),
        frequency_penalty=_or_default(request.frequency_penalty, 0.0),
        repetition_penalty=_or_default(request.repetition_penalty, 1.0),
        no_repeat_ngram_size=request.no_repeat_ngram_size or 0,
        logit_bias=tuple((int(token_id), bias) for token_id, bias in (request.logit_bias or {}).items()),
        seed=seed if request.seed is None else request.seed,
        stop=_stop_sequences(request),
        include_stop_str_in_output=bool(request.include_stop_str_in_output),
        stop_token_ids=stop_token_ids,
        ignore_eos=bool(request.ignore_eos),
        num_logprobs=request.logprobs,
        num_prompt_logprobs=request.logprobs if request.echo else None,
    )


def _stop_sequences(request: CompletionRequest) -> tuple[str, ...]:
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else float(value)
