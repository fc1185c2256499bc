"""A request of TGI's protocol and what it comes to: TGI's own rules across its fields, work for the engine."""

from __future__ import annotations

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError
from distilgpt2_api.core.grammar import Grammar
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.seeds import NO_SEED, choose_seed
from distilgpt2_api.engine.validation import check_stop
from distilgpt2_api.server.generation.prompts import Truncation
from distilgpt2_api.server.generation.sampling_params import check_at_most, plain_params
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.protocols.tgi.schema import TgiParameters, TgiRequest
from distilgpt2_api.server.protocols.tgi.writer import TgiShape
from distilgpt2_api.server.schema.grammars import tgi_grammar
from distilgpt2_api.server.service import Service
from distilgpt2_api.text.grammars import GrammarCompiler

DEFAULT_MAX_NEW_TOKENS = 1024

DEFAULT_PARAMETERS = TgiParameters.model_validate({"do_sample": True})
"""Where a request has no parameters at all: TGI samples then, though not where they are empty."""


def parameters_of(request: TgiRequest) -> TgiParameters:
    return DEFAULT_PARAMETERS if request.parameters is None else request.parameters


def check_tgi(parameters: TgiParameters, limits: RequestLimits, *, is_streamed: bool) -> None:
    """What each field may be, but not all together, or not here. Raises InvalidRequestError."""
    best_of = parameters.best_of or 1
    check_at_most(best_of, limits.max_n, param="parameters.best_of")
    if best_of > 1 and not is_sampled(parameters):
        raise _invalid("best_of", "more than 1 needs sampling")
    if best_of > 1 and parameters.seed not in (None, NO_SEED):
        raise _invalid("best_of", "more than 1 can't have a seed")
    if best_of > 1 and is_streamed:
        raise _invalid("best_of", "more than 1 can't be streamed")
    if parameters.decoder_input_details and is_streamed:
        raise _invalid("decoder_input_details", "can't be streamed")
    if len(parameters.stop or ()) > limits.max_stop_sequences:
        raise _invalid("stop", f"at most {limits.max_stop_sequences} sequences here")
    check_stop(parameters.stop or (), param="parameters.stop")
    check_at_most(parameters.top_n_tokens, limits.max_logprobs, param="parameters.top_n_tokens")


def is_sampled(parameters: TgiParameters) -> bool:
    draw = (parameters.temperature, parameters.top_k, parameters.top_p, parameters.typical_p)
    return bool(parameters.do_sample) or any(value is not None for value in draw)


def truncation_of(parameters: TgiParameters, config: ModelConfig) -> Truncation | None:
    """Raises InvalidRequestError for one that leaves the model no room."""
    length = parameters.truncate
    if length is None:
        return None
    check_at_most(length, config.num_positions - 1, param="parameters.truncate")
    return Truncation(length, keeps_end=True)


async def read_grammar(parameters: TgiParameters, grammars: GrammarCompiler) -> Grammar | None:
    """Compiled on a thread, for that may take a tenth of a second. Raises InvalidRequestError."""
    grammar = tgi_grammar(parameters.grammar)
    return None if grammar is None else await grammars.check_soon(grammar, param="parameters.grammar")


def tgi_params(
    parameters: TgiParameters, grammar: Grammar | None, *, service: Service, num_prompt_tokens: int, is_streamed: bool
) -> SamplingParams:
    """Raises ContextLengthError."""
    config = service.engine.model_config
    has_tokens = is_streamed or has_details(parameters) or (parameters.best_of or 1) > 1
    temperature = (parameters.temperature or 1.0) if is_sampled(parameters) else 0.0
    own = {
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
    }  # the writer knows which tokens are special
    return SamplingParams(
        **plain_params(parameters, config, temperature=temperature, **own),
        max_tokens=_max_tokens(parameters.max_new_tokens, num_prompt_tokens, config),
        grammar=grammar,
        seed=choose_seed(parameters.seed, service.draw_seed),
        stop=tuple(parameters.stop or ()),
        num_logprobs=(parameters.top_n_tokens or 0) if has_tokens else None,
        num_prompt_logprobs=0 if parameters.decoder_input_details else None,
    )


def has_details(parameters: TgiParameters) -> bool:
    return bool(parameters.details or parameters.decoder_input_details)


def shape_of(parameters: TgiParameters, params: SamplingParams, *, inputs: str, is_list: bool) -> TgiShape:
    return TgiShape(
        text_before=inputs if parameters.return_full_text else "",
        is_list=is_list,
        has_details=has_details(parameters),
        has_prefill=bool(parameters.decoder_input_details),
        num_top_tokens=parameters.top_n_tokens or 0,
        seed=None if params.is_greedy else params.seed,
    )


def _max_tokens(max_new_tokens: int | None, num_prompt_tokens: int, config: ModelConfig) -> int:
    num_left = config.num_positions - num_prompt_tokens
    if num_left < 1:
        # TGI's own sentences, here and below. Its errors have no place for the parameter, so it comes first.
        raise ContextLengthError(
            f"inputs: `inputs` must have less than {config.num_positions} tokens. Given: {num_prompt_tokens}",
            param="inputs",
        )
    if max_new_tokens is None:
        return min(DEFAULT_MAX_NEW_TOKENS, num_left)
    if max_new_tokens > num_left:
        raise ContextLengthError(
            f"parameters.max_new_tokens: `inputs` tokens + `max_new_tokens` must be <= {config.num_positions}. Given:"
            f" {num_prompt_tokens} `inputs` tokens and {max_new_tokens} `max_new_tokens`",
            param="parameters.max_new_tokens",
        )
    return max_new_tokens


def _invalid(name: str, message: str) -> InvalidRequestError:
    param = f"parameters.{name}"
    return InvalidRequestError(f"{param}: {message}", param=param)
