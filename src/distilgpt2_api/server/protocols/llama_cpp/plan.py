"""A completion request's checks across its fields, by llama.cpp's own rules, and its plan."""

from dataclasses import replace

from distilgpt2_api.core.errors import ContextLengthError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.core.seeds import choose_seed
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.plan import GenerationPlan, plan_generation
from distilgpt2_api.server.generation.sampling_params import (
    check_at_most,
    check_stop_sequences,
    plain_params,
    predicted_tokens,
)
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.llama_cpp.prompts import encode_prompts, read_biases
from distilgpt2_api.server.protocols.llama_cpp.schema import DEFAULTS, LlamaCompletionRequest
from distilgpt2_api.server.schema.grammars import llama_grammar
from distilgpt2_api.server.service import Service


def check_completion(request: LlamaCompletionRequest, limits: RequestLimits) -> None:
    """Check this deployment's limits. Raises InvalidRequestError."""
    check_at_most(request.n_cmpl, limits.max_n, param="n_cmpl")
    check_at_most(request.n_probs, limits.max_logprobs, param="n_probs")
    check_stop_sequences(request.stop_sequences, limits)


async def plan_completion(
    request: LlamaCompletionRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    engine, config = service.engine, service.engine.model_config
    defaults = service.sampling_defaults.over(DEFAULTS)
    grammar = None
    if (found := llama_grammar(request.json_schema, request.grammar)) is not None:
        grammar = await engine.grammars.check_soon(found[0], param=found[1])
    biases = read_biases(request.logit_bias, tokenizer=engine.tokenizer, config=config)
    banned = dict.fromkeys([*biases.banned, *(config.eos_token_ids if request.ignore_eos else ())])
    params = SamplingParams(
        **plain_params(
            request,
            config,
            defaults,
            repetition_penalty=request.repeat_penalty,
            dry_sequence_breakers=request.breakers,
        ),
        logit_bias=tuple(biases.biases.items()),
        bad_words=tuple((token_id,) for token_id in banned),
        grammar=grammar,
        seed=choose_seed(request.seed, service.draw_seed),
        stop=request.stop_sequences,
        num_logprobs=request.n_probs or None,
    )
    prompts = await encode_prompts(
        request.prompt, encoder=encoder, config=config, max_prompts=service.limits.max_prompts
    )
    record.num_prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    plan = plan_generation(
        prompts,
        params,
        num_sequences=request.num_sequences,
        is_streamed=bool(request.stream),
        deadline_s=service.limits.timeout_s,
    )
    by_max_tokens: dict[int, SamplingParams] = {}
    requests = []
    for generation in plan.requests:  # each prompt has its own rest of the context
        max_tokens = _max_tokens(request, len(generation.prompt_token_ids), config.num_positions, defaults)
        own = by_max_tokens.setdefault(max_tokens, replace(params, max_tokens=max_tokens))
        requests.append(replace(generation, params=own))
    plan = replace(plan, requests=requests)
    if request.n_probs and not request.stream:
        plan.check_num_logprobs(config, param="n_probs")
    return plan


def _max_tokens(
    request: LlamaCompletionRequest, num_prompt_tokens: int, num_positions: int, defaults: SamplingDefaults
) -> int:
    """The rest of the context, or fewer. Raises ContextLengthError if none is left."""
    num_left = num_positions - num_prompt_tokens
    if num_left < 1:
        # llama.cpp's own sentence.
        raise ContextLengthError(
            f"prompt: request ({num_prompt_tokens} tokens) exceeds the available context size ({num_positions} tokens),"
            " try shortening it",
            param="prompt",
        )
    return predicted_tokens(request.n_predict, num_left, defaults)
