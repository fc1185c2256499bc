"""Checks of Ollama's requests across their fields, and their plans."""

from dataclasses import replace

from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.core.grammar import Grammar
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.core.seeds import choose_seed
from distilgpt2_api.engine.validation import check_token_ids
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.chat_prompt import encode_chat, require_template
from distilgpt2_api.server.generation.plan import GenerationPlan, plan_generation
from distilgpt2_api.server.generation.prompts import EncodedPrompt, encode_texts
from distilgpt2_api.server.generation.sampling_params import (
    check_at_most,
    check_stop_sequences,
    plain_params,
    predicted_tokens,
)
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.protocols.ollama.schema import (
    DEFAULTS,
    DURATION_TEXT,
    ZERO_DURATION,
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaOptions,
    OllamaRequest,
)
from distilgpt2_api.server.schema.chat_prompt import ChatPromptFields
from distilgpt2_api.server.schema.grammars import ollama_grammar
from distilgpt2_api.server.service import Service

LATEST = ":latest"
"""The tag that Ollama's clients may add to a name without one."""


def check_ollama(request: OllamaRequest, service: Service) -> None:
    """Check constraints between fields, the model's name, and this deployment's limits. Raises InvalidRequestError."""
    check_model(request.model, service)
    _check_keep_alive(request.keep_alive)
    ollama_grammar(request.format)  # also of a request without a prompt
    check_stop_sequences(request.own_options.stop or (), service.limits, param="options.stop")
    check_at_most(request.top_logprobs, service.limits.max_logprobs, param="top_logprobs")
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError("top_logprobs is only allowed with logprobs", param="top_logprobs")
    if isinstance(request, OllamaGenerateRequest) and request.raw:
        for name in ("system", "context"):
            if getattr(request, name):
                raise InvalidRequestError(f"{name} cannot be used with raw", param=name)


def check_model(name: str | None, service: Service) -> None:
    """Raises UnknownModelError."""
    model = service.model
    model.check_name(name if name is None or name in model.listed_names else name.removesuffix(LATEST))


def _check_keep_alive(value: object) -> None:
    """Raises InvalidRequestError for what is no duration, and for 0: the model is always loaded."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and value):
        return
    if not is_number and not (isinstance(value, str) and DURATION_TEXT.fullmatch(value)):
        raise InvalidRequestError(
            'keep_alive must be a number of seconds, or a text such as "5m" or "1h30m"', param="keep_alive"
        )
    if is_number or ZERO_DURATION.fullmatch(str(value)):
        raise UnsupportedParameterError(
            "keep_alive 0 would unload the model; this service keeps it loaded until it stops: leave keep_alive out",
            param="keep_alive",
        )


async def plan_ollama(
    request: OllamaGenerateRequest | OllamaChatRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    config, options = service.engine.model_config, request.own_options
    if isinstance(request, OllamaChatRequest):
        prompt = await _encode_messages(request.messages, service, encoder, instead="/api/generate")
    else:
        prompt = await _encode_prompt(request, service, encoder)
    num_prompt_tokens = record.num_prompt_tokens = len(prompt.token_ids)
    param = "messages" if isinstance(request, OllamaChatRequest) else "prompt"
    defaults = service.sampling_defaults.over(DEFAULTS)
    max_tokens = _max_tokens(options, num_prompt_tokens, config.num_positions, defaults, param=param)
    grammar: Grammar | None = ollama_grammar(request.format)
    if grammar is not None:
        grammar = await service.engine.grammars.check_soon(grammar, param="format")
    params = SamplingParams(
        **plain_params(
            options,
            config,
            defaults,
            repetition_penalty=options.repeat_penalty,
            dry_sequence_breakers=options.breakers,
        ),
        max_tokens=max_tokens,
        grammar=grammar,
        seed=choose_seed(options.seed, service.draw_seed),
        stop=tuple(options.stop or ()),
        num_logprobs=request.num_logprobs,
    )
    plan = plan_generation(
        [prompt],
        params,
        num_sequences=1,
        is_streamed=request.is_streamed,
        deadline_s=service.limits.timeout_s,
    )
    if request.num_logprobs is not None and not request.is_streamed:
        plan.check_num_logprobs(config, param="top_logprobs")
    return plan


async def _encode_prompt(request: OllamaGenerateRequest, service: Service, encoder: TextEncoder) -> EncodedPrompt:
    """The prompt after the earlier context. With a chat template and without `raw`, it is a user's message."""
    config, context = service.engine.model_config, tuple(request.context or ())
    check_token_ids(context, config, param="context")
    assert request.prompt
    if request.raw or (service.chat_template is None and not request.system):
        [prompt] = await encode_texts([request.prompt], encoder=encoder, config=config, add_special_tokens=not context)
    else:
        messages = [{"role": "user", "content": request.prompt}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        try:
            prompt = await _encode_messages(messages, service, encoder, instead="prompt alone, without system")
        except InvalidRequestError as error:
            raise type(error)(str(error), param="system" if request.system else "prompt") from None
    return replace(prompt, token_ids=context + prompt.token_ids)


async def _encode_messages(messages: object, service: Service, encoder: TextEncoder, *, instead: str) -> EncodedPrompt:
    template = require_template(service.chat_template, instead=instead)
    match messages:
        case [*_, {"role": "assistant"}]:
            is_continued = True
        case _:
            is_continued = False
    fields = ChatPromptFields.model_validate({"messages": messages, "continue_final_message": is_continued})
    return await encode_chat(fields, template=template, encoder=encoder, config=service.engine.model_config)


def _max_tokens(
    options: OllamaOptions, num_prompt_tokens: int, num_positions: int, defaults: SamplingDefaults, *, param: str
) -> int:
    """The rest of the context, or fewer. Raises ContextLengthError if none is left."""
    num_allowed = min(options.num_ctx or num_positions, num_positions)
    num_left = num_allowed - num_prompt_tokens
    if num_left < 1:
        by_option = num_allowed < num_positions
        raise ContextLengthError.exceeding(
            num_allowed,
            f"{num_prompt_tokens + 1} tokens ({num_prompt_tokens} in the {param}, 1 or more in the completion)",
            shorten=f"the {param}, or raise options.num_ctx" if by_option else f"the {param}",
            param=param,
        )
    return predicted_tokens(options.num_predict, num_left, defaults)
