"""From a request's fields to the engine's sampling parameters."""

from collections.abc import Callable, Sequence
from typing import Any

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.grammar import Grammar
from distilgpt2_api.core.params import MIROSTAT_REPLACES, PLAIN_PARAMETERS, SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.core.seeds import choose_seed
from distilgpt2_api.engine.validation import check_num_bytes, check_stop
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.schema.grammars import openai_grammar
from distilgpt2_api.server.schema.sampling import MAX_BAD_WORDS_BYTES, SamplingFields
from distilgpt2_api.server.schema.structured import StructuredFields
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MIN_TOP_P = 1e-6
"""0 is legal in OpenAI's specification, and means the same as the smallest value: the likeliest token only."""


def check_limits(fields: SamplingFields, limits: RequestLimits) -> None:
    """Check this service's limits, and constraints between fields. Raises InvalidRequestError."""
    check_at_most(fields.n, limits.max_n, param="n")
    check_stop_sequences(_stop_sequences(fields), limits)
    if fields.has_usage_chunk and not fields.stream:
        raise InvalidRequestError("stream_options is only allowed with stream", param="stream_options")


def check_stop_sequences(stop: Sequence[str], limits: RequestLimits, *, param: str = "stop") -> None:
    """Their number and length. Raises InvalidRequestError; `param` is the field's name in the request."""
    if len(stop) > limits.max_stop_sequences:
        raise InvalidRequestError(
            f"{param} has {len(stop)} sequences; this service allows at most {limits.max_stop_sequences}", param=param
        )
    check_stop(stop, param=param)


def check_at_most(number: int | None, limit: int, *, param: str) -> None:
    """Raises InvalidRequestError above this service's limit; `param` is the field's name in the request."""
    if (number or 0) > limit:
        raise InvalidRequestError(f"{param} is {number}; this service allows at most {limit}", param=param)


async def read_grammar(fields: StructuredFields, grammars: GrammarCompiler) -> tuple[Grammar, str] | None:
    """The completion's grammar, and the name of the field that requests it. Raises InvalidRequestError.

    The grammar is compiled on a thread, because that may take a tenth of a second.
    """
    found = openai_grammar(**{name: getattr(fields, name) for name in StructuredFields.model_fields})
    if found is None:
        return None
    grammar, param = found
    return await grammars.check_soon(grammar, param=param), param


def sampling_params(
    fields: SamplingFields,
    *,
    tokenizer: Tokenizer,
    config: ModelConfig,
    defaults: SamplingDefaults,
    max_tokens: int,
    num_logprobs: int | None,
    num_prompt_logprobs: int | None,
    grammar: Grammar | None,
    draw_seed: Callable[[], int],
) -> SamplingParams:
    """`draw_seed` is for requests without a seed. Raises InvalidRequestError; the engine checks token ids itself."""
    return SamplingParams(
        **plain_params(
            fields,
            config,
            defaults,
            temperature=_temperature(fields, defaults),
            dry_sequence_breakers=fields.breakers,
        ),
        max_tokens=max_tokens,
        logit_bias=tuple((int(token_id), bias) for token_id, bias in (fields.logit_bias or {}).items()),
        bad_words=_bad_words(fields.bad_words or (), tokenizer),
        allowed_token_ids=tuple(dict.fromkeys(fields.allowed_token_ids or ())),
        grammar=grammar,
        seed=choose_seed(fields.seed, draw_seed),
        stop=_stop_sequences(fields),
        stop_token_ids=tuple(dict.fromkeys(fields.stop_token_ids or ())),
        num_logprobs=num_logprobs,
        num_prompt_logprobs=num_prompt_logprobs,
    )


def plain_params(fields: object, config: ModelConfig, defaults: SamplingDefaults, **overrides: Any) -> dict[str, Any]:
    """The register's plain parameters, by name, from a request's fields of the same names.

    A field that is missing or null gives the default, else the neutral value. `overrides`: values that a protocol's own
    rules decide; None leaves the decision to the rest. With mirostat, only the request sets what it replaces.
    """
    params: dict[str, Any] = {}
    for name, entry in PLAIN_PARAMETERS.items():
        value = getattr(fields, name, None)
        params[name] = defaults.params.get(name, entry.neutral) if value is None else entry.type(value)
    if params["mirostat"]:
        absent = (name for name in MIROSTAT_REPLACES if getattr(fields, name, None) is None)
        params |= {name: PLAIN_PARAMETERS[name].neutral for name in absent}
    params["top_k"] = params["top_k"] if 0 < params["top_k"] < config.vocab_size else 0
    params["top_p"] = max(params["top_p"], MIN_TOP_P)
    return params | {name: value for name, value in overrides.items() if value is not None}


def predicted_tokens(num_predict: int | None, num_left: int, defaults: SamplingDefaults) -> int:
    """The maximum of completion tokens by llama.cpp's and Ollama's rule: a negative number is the context's rest."""
    if num_predict is None:
        return defaults.limit(num_left, num_left)
    return num_left if num_predict < 0 else min(num_predict, num_left)


def _temperature(fields: SamplingFields, defaults: SamplingDefaults) -> float:
    """`do_sample` false is greedy, unless the request has a parameter that shapes sampling. True is never greedy."""
    if fields.temperature == 0 and fields.do_sample:
        raise InvalidRequestError("do_sample cannot be true with temperature 0, which is greedy", param="do_sample")
    shapes = (fields.temperature, fields.top_k, fields.top_p, fields.typical_p)
    if fields.do_sample is False and all(shape is None for shape in shapes):
        return 0.0
    if fields.temperature is not None:
        return float(fields.temperature)
    default = float(defaults.params.get("temperature", 1.0))
    return 1.0 if fields.do_sample and not default else default


def _bad_words(words: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each word's tokens at the beginning of a text, and after a space."""
    check_num_bytes(words, MAX_BAD_WORDS_BYTES, param="bad_words")
    stripped = [word.lstrip() for word in words]
    if not all(stripped):
        raise InvalidRequestError("bad_words has a word that is only white space; remove it", param="bad_words")
    try:
        encoded = tokenizer.encode_batch([prefix + word for word in stripped for prefix in ("", " ")])
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error).replace("prompt", "bad_words", 1), param="bad_words") from error
    return tuple(dict.fromkeys(map(tuple, encoded)))


def _stop_sequences(fields: SamplingFields) -> tuple[str, ...]:
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
