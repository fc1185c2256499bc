"""A TGI request's checks across its fields, by TGI's own rules, and its plan."""

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.core.seeds import NO_SEED, choose_seed
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.plan import GenerationPlan, plan_generation
from distilgpt2_api.server.generation.prompts import Truncation, encode_texts
from distilgpt2_api.server.generation.sampling_params import check_at_most, check_stop_sequences, plain_params
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.tgi.schema import TgiParameters, TgiRequest
from distilgpt2_api.server.schema.grammars import tgi_grammar
from distilgpt2_api.server.service import Service

DEFAULT_MAX_NEW_TOKENS = 1024


def check_tgi(request: TgiRequest, limits: RequestLimits, defaults: SamplingDefaults) -> None:
    """Check constraints between fields, and this deployment's limits. Raises InvalidRequestError."""
    parameters = request.own_parameters
    check_at_most(parameters.best_of, limits.max_n, param="parameters.best_of")
    if parameters.num_sequences > 1 and not parameters.is_sampled(defaults):
        raise _invalid("best_of", "greater than 1 requires sampling; set do_sample")
    if parameters.num_sequences > 1 and parameters.seed not in (None, NO_SEED):
        raise _invalid("best_of", "greater than 1 cannot be used with seed")
    if parameters.num_sequences > 1 and request.is_streamed:
        raise _invalid("best_of", "greater than 1 cannot be streamed")
    if parameters.decoder_input_details and request.is_streamed:
        raise _invalid("decoder_input_details", "cannot be streamed")
    check_stop_sequences(parameters.stop or (), limits, param="parameters.stop")
    check_at_most(parameters.top_n_tokens, limits.max_logprobs, param="parameters.top_n_tokens")


async def plan_tgi(
    request: TgiRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    parameters, config, defaults = request.own_parameters, service.engine.model_config, service.sampling_defaults
    prompts = await encode_texts(
        [request.inputs], encoder=encoder, config=config, truncation=_truncation(parameters, config), param="inputs"
    )
    num_prompt_tokens = record.num_prompt_tokens = len(prompts[0].token_ids)
    if (grammar := tgi_grammar(parameters.grammar)) is not None:
        grammar = await service.engine.grammars.check_soon(grammar, param="parameters.grammar")
    # Streams and details show each token with its log-probability, and `best_of` compares them.
    has_logprobs = request.is_streamed or parameters.has_details or parameters.num_sequences > 1
    params = SamplingParams(
        **plain_params(
            parameters,
            config,
            defaults,
            temperature=_temperature(parameters, defaults),
            include_stop_str_in_output=True,
            skip_special_tokens=False,  # the writer knows which tokens are special
        ),
        max_tokens=_max_tokens(parameters.max_new_tokens, num_prompt_tokens, config, defaults),
        grammar=grammar,
        seed=choose_seed(parameters.seed, service.draw_seed),
        stop=tuple(parameters.stop or ()),
        num_logprobs=(parameters.top_n_tokens or 0) if has_logprobs else None,
        num_prompt_logprobs=0 if parameters.decoder_input_details else None,
    )
    plan = plan_generation(
        prompts,
        params,
        num_sequences=parameters.num_sequences,
        is_streamed=request.is_streamed,
        deadline_s=service.limits.timeout_s,
    )
    if has_logprobs and not request.is_streamed:
        plan.check_num_logprobs(config, param="parameters.top_n_tokens")
    return plan


def _truncation(parameters: TgiParameters, config: ModelConfig) -> Truncation | None:
    """Raises InvalidRequestError if it leaves no room in the model's context."""
    if parameters.truncate is None:
        return None
    check_at_most(parameters.truncate, config.num_positions - 1, param="parameters.truncate")
    return Truncation(parameters.truncate, keeps_end=True)


def _temperature(parameters: TgiParameters, defaults: SamplingDefaults) -> float:
    if not parameters.is_sampled(defaults):
        return 0.0
    return parameters.temperature or defaults.params.get("temperature") or 1.0


def _max_tokens(
    max_new_tokens: int | None, num_prompt_tokens: int, config: ModelConfig, defaults: SamplingDefaults
) -> int:
    num_left = config.num_positions - num_prompt_tokens
    if num_left < 1:
        # TGI's own sentences, here and below. Its errors have no field for the parameter, so its name comes first.
        raise ContextLengthError(
            f"inputs: `inputs` must have less than {config.num_positions} tokens. Given: {num_prompt_tokens}",
            param="inputs",
        )
    if max_new_tokens is None:
        return defaults.limit(min(DEFAULT_MAX_NEW_TOKENS, num_left), num_left)
    if max_new_tokens > num_left:
        raise ContextLengthError(
            f"parameters.max_new_tokens: `inputs` tokens + `max_new_tokens` must be <= {config.num_positions}. Given:"
            f" {num_prompt_tokens} `inputs` tokens and {max_new_tokens} `max_new_tokens`",
            param="parameters.max_new_tokens",
        )
    return max_new_tokens


def _invalid(name: str, message: str) -> InvalidRequestError:
    param = f"parameters.{name}"
    return InvalidRequestError(f"{param} {message}", param=param)
