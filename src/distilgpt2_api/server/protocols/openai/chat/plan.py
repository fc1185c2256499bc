"""A chat request's checks across its fields, and its plan."""

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.validation import check_context_length
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.chat_prompt import encode_chat
from distilgpt2_api.server.generation.plan import GenerationPlan, plan_generation
from distilgpt2_api.server.generation.sampling_params import check_at_most, check_limits, read_grammar, sampling_params
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.openai.chat.schema import ChatCompletionRequest
from distilgpt2_api.server.service import Service
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate


def check_chat(request: ChatCompletionRequest, limits: RequestLimits) -> None:
    """Check constraints between fields, and this deployment's limits. Raises InvalidRequestError."""
    check_limits(request, limits)
    check_at_most(request.top_logprobs, limits.max_logprobs, param="top_logprobs")
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError("top_logprobs is only allowed with logprobs", param="top_logprobs")


async def plan_chat(
    request: ChatCompletionRequest,
    template: ChatTemplate,
    service: Service,
    record: RequestRecord,
    encoder: TextEncoder,
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    config = service.engine.model_config
    prompt = await encode_chat(request, template=template, encoder=encoder, config=config)
    num_prompt_tokens = record.num_prompt_tokens = len(prompt.token_ids)
    max_tokens = request.max_completion_tokens
    if max_tokens is None:
        num_left = config.num_positions - num_prompt_tokens
        max_tokens = service.sampling_defaults.limit(num_left, num_left)
    param = "max_completion_tokens" if request.max_tokens is None else "max_tokens"
    check_context_length(num_prompt_tokens, max_tokens, config, param=param, prompt_param="messages")
    grammar, _ = await read_grammar(request, service.engine.grammars) or (None, "")
    params = sampling_params(
        request,
        tokenizer=service.engine.tokenizer,
        config=config,
        defaults=service.sampling_defaults,
        max_tokens=max_tokens,
        num_logprobs=request.num_logprobs,
        num_prompt_logprobs=None,
        grammar=grammar,
        draw_seed=service.draw_seed,
    )
    plan = plan_generation(
        [prompt],
        params,
        num_sequences=request.num_choices,
        is_streamed=bool(request.stream),
        deadline_s=service.limits.deadline_s(request.timeout_s),
        priority=request.priority or 0,
    )
    if request.num_logprobs is not None and not request.stream:
        plan.check_num_logprobs(config, param="top_logprobs")
    return plan
