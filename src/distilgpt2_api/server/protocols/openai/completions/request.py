"""A completion request and what it comes to: checks across its fields, work for the engine, the answer's shape."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.server.generation.beam_options import check_beam_search
from distilgpt2_api.server.generation.prompts import EncodedPrompt, Truncation
from distilgpt2_api.server.generation.sampling_params import (
    check_at_most,
    check_limits,
    check_num_logprobs,
    read_grammar,
    sampling_params,
)
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest
from distilgpt2_api.server.protocols.openai.completions.writer import CompletionShape
from distilgpt2_api.server.service import Service

DEFAULT_MAX_TOKENS = 16


def check_completion(request: CompletionRequest, limits: RequestLimits) -> None:
    """What each field may be, but not all together, or not here. Raises InvalidRequestError."""
    check_limits(request, limits)
    check_at_most(request.logprobs, limits.max_logprobs, param="logprobs")
    check_at_most(request.prompt_logprobs, limits.max_logprobs, param="prompt_logprobs")
    check_at_most(request.best_of, limits.max_n, param="best_of")
    if request.stream and request.prompt_logprobs is not None:
        raise InvalidRequestError("prompt_logprobs: not with stream", param="prompt_logprobs")
    num_choices, num_drawn = request.n or 1, num_sequences(request)
    if num_drawn < num_choices:
        raise InvalidRequestError(f"best_of: at least n ({num_choices})", param="best_of")
    if request.stream and num_drawn > num_choices:
        raise InvalidRequestError("best_of: more than n can't be streamed", param="best_of")
    if not request.use_beam_search:
        for name, neutral in (("length_penalty", 1), ("early_stopping", False)):
            if getattr(request, name) not in (None, neutral):
                raise InvalidRequestError(f"{name}: only with use_beam_search", param=name)


def beam_options_of(request: CompletionRequest) -> BeamOptions | None:
    """None: draws, no search."""
    if not request.use_beam_search:
        return None
    return BeamOptions(
        num_beams=num_sequences(request),
        length_penalty=1.0 if request.length_penalty is None else float(request.length_penalty),
        early_stopping=request.early_stopping or False,
    )


def num_sequences(request: CompletionRequest) -> int:
    """Completions drawn of each prompt, or beams followed."""
    return request.best_of or request.n or 1


def check_answer_size(request: CompletionRequest, requests: Sequence[GenerationRequest], config: ModelConfig) -> None:
    """Raises InvalidRequestError for an answer of too many log-probabilities. A stream does not keep them."""
    if not request.stream:
        param = None if request.logprobs is None else "logprobs"
        prompt_param = param if request.echo else None
        if request.prompt_logprobs is not None:
            prompt_param = "prompt_logprobs"
        check_num_logprobs(requests, config, param=param, prompt_param=prompt_param)


def max_tokens_of(request: CompletionRequest) -> int:
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def truncation_of(request: CompletionRequest, config: ModelConfig) -> Truncation | None:
    length = request.truncate_prompt_tokens
    if length is None:
        return None
    if length == -1:
        length = max(1, config.num_positions - max_tokens_of(request))
    return Truncation(length, keeps_end=request.truncation_side != "right")


async def completion_params(request: CompletionRequest, service: Service) -> SamplingParams:
    """Raises InvalidRequestError."""
    num_logprobs = request.logprobs
    if num_logprobs is None and num_sequences(request) > (request.n or 1):
        num_logprobs = 0  # The choice among the sequences needs those of the tokens drawn.
    nums_for_prompt = (request.logprobs if request.echo else None, request.prompt_logprobs)
    config = service.engine.model_config
    grammar, grammar_param = await read_grammar(request, service.engine.grammars) or (None, "")
    params = sampling_params(
        request,
        tokenizer=service.engine.tokenizer,
        config=config,
        max_tokens=max_tokens_of(request),
        num_logprobs=num_logprobs,
        num_prompt_logprobs=max((num for num in nums_for_prompt if num is not None), default=None),
        grammar=grammar,
        draw_seed=service.draw_seed,
    )
    if (options := beam_options_of(request)) is not None:
        check_beam_search(params, options, config, is_streamed=bool(request.stream), grammar_param=grammar_param)
    return params


def generation_requests(
    request: CompletionRequest, prompts: Sequence[EncodedPrompt], params: SamplingParams, limits: RequestLimits
) -> list[GenerationRequest]:
    """One for each prompt."""
    group_id = uuid.uuid4().hex
    return [
        GenerationRequest(
            request_id=f"{group_id}-{index}",
            prompt_token_ids=prompt.token_ids,
            params=params,
            num_sequences=(request.n or 1) if request.use_beam_search else num_sequences(request),
            is_streamed=bool(request.stream),
            priority=request.priority or 0,
            deadline_s=limits.deadline_s(request.timeout_s),
        )
        for index, prompt in enumerate(prompts)
    ]


def shape_of(request: CompletionRequest) -> CompletionShape:
    return CompletionShape(
        num_choices_per_prompt=request.n or 1,
        has_echo=bool(request.echo),
        num_logprobs=request.logprobs,
        num_prompt_logprobs=request.prompt_logprobs,
        has_token_ids=bool(request.return_token_ids),
        has_tokens_by_id=bool(request.return_tokens_as_token_ids),
        skips_special_tokens=request.skip_special_tokens is not False,
        has_usage_chunk=request.has_usage_chunk,
        has_usage_in_chunks=request.has_usage_in_chunks,
    )
