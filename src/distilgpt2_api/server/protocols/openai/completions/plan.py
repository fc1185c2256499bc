"""A completion request's checks across its fields, and its plan."""

from dataclasses import replace

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import BEAM_SEARCH_PARAMETERS
from distilgpt2_api.engine.beam_search import BeamOptions
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.beam_options import check_beam_search
from distilgpt2_api.server.generation.plan import GenerationPlan, plan_generation
from distilgpt2_api.server.generation.prompts import Truncation, encode_prompts
from distilgpt2_api.server.generation.sampling_params import check_at_most, check_limits, read_grammar, sampling_params
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.openai.completions.schema import DEFAULT_MAX_TOKENS, CompletionRequest
from distilgpt2_api.server.service import Service


def check_completion(request: CompletionRequest, limits: RequestLimits) -> None:
    """Check constraints between fields, and this deployment's limits. Raises InvalidRequestError."""
    check_limits(request, limits)
    check_at_most(request.logprobs, limits.max_logprobs, param="logprobs")
    check_at_most(request.prompt_logprobs, limits.max_logprobs, param="prompt_logprobs")
    check_at_most(request.best_of, limits.max_n, param="best_of")
    if request.stream and request.prompt_logprobs is not None:
        raise InvalidRequestError("prompt_logprobs cannot be used with stream", param="prompt_logprobs")
    if request.num_sequences < request.num_choices:
        raise InvalidRequestError(
            f"best_of is {request.num_sequences}; it must be at least n, {request.num_choices}", param="best_of"
        )
    if request.stream and request.num_sequences > request.num_choices:
        raise InvalidRequestError("best_of greater than n cannot be used with stream", param="best_of")
    if not request.use_beam_search:
        for name, neutral in (("length_penalty", 1), ("early_stopping", False)):
            if getattr(request, name) not in (None, neutral):
                raise InvalidRequestError(f"{name} is only allowed with use_beam_search", param=name)


async def plan_completion(
    request: CompletionRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    config = service.engine.model_config
    defaults = service.sampling_defaults
    max_tokens = request.max_tokens
    if max_tokens is None:
        max_tokens = defaults.limit(DEFAULT_MAX_TOKENS, config.num_positions)
    num_logprobs = request.logprobs
    if num_logprobs is None and request.num_sequences > request.num_choices:
        num_logprobs = 0  # `best_of` compares the log-probabilities of the sampled tokens.
    nums_for_prompt = (request.logprobs if request.echo else None, request.prompt_logprobs)
    grammar, grammar_param = await read_grammar(request, service.engine.grammars) or (None, "")
    params = sampling_params(
        request,
        tokenizer=service.engine.tokenizer,
        config=config,
        defaults=defaults.only(BEAM_SEARCH_PARAMETERS) if request.use_beam_search else defaults,
        max_tokens=max_tokens,
        num_logprobs=num_logprobs,
        num_prompt_logprobs=max((num for num in nums_for_prompt if num is not None), default=None),
        grammar=grammar,
        draw_seed=service.draw_seed,
    )
    beams = _beam_options(request)
    if beams is not None:
        check_beam_search(params, beams, config, is_streamed=bool(request.stream), grammar_param=grammar_param)
    prompts = await encode_prompts(
        request.prompt,
        encoder=encoder,
        config=config,
        max_prompts=service.limits.max_prompts,
        truncation=_truncation(request, config, max_tokens),
        add_special_tokens=request.add_special_tokens is not False,
    )
    record.num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    if request.max_tokens is None:
        num_left = config.num_positions - max(len(prompt.token_ids) for prompt in prompts)
        params = replace(params, max_tokens=defaults.limit(max_tokens, num_left))
    plan = plan_generation(
        prompts,
        params,
        num_sequences=request.num_sequences if beams is None else request.num_choices,
        is_streamed=bool(request.stream),
        deadline_s=service.limits.deadline_s(request.timeout_s),
        priority=request.priority or 0,
        beams=beams,
    )
    if not request.stream:  # a stream does not keep them
        param = None if request.logprobs is None else "logprobs"
        prompt_param = param if request.echo else None
        plan.check_num_logprobs(
            config, param=param, prompt_param=prompt_param if request.prompt_logprobs is None else "prompt_logprobs"
        )
    return plan


def _beam_options(request: CompletionRequest) -> BeamOptions | None:
    if not request.use_beam_search:
        return None
    return BeamOptions(
        num_beams=request.num_sequences,
        length_penalty=1.0 if request.length_penalty is None else float(request.length_penalty),
        early_stopping=request.early_stopping or False,
    )


def _truncation(request: CompletionRequest, config: ModelConfig, max_tokens: int) -> Truncation | None:
    length = request.truncate_prompt_tokens
    if length is None:
        return None
    if length == -1:
        length = max(1, config.num_positions - max_tokens)
    return Truncation(length, keeps_end=request.truncation_side != "right")
