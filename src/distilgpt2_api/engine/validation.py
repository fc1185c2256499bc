"""Checks requests against the model."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from distilgpt2_api.core.caller import Caller
from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError
from distilgpt2_api.core.params import PLAIN_PARAMETERS, SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.model.sampling.logits_processors import LogitsProcessors
from distilgpt2_api.model.sampling.repetition import SequenceBreakers
from distilgpt2_api.scheduling.sequence import EndingTokens
from distilgpt2_api.text.detokenization.stop_matcher import compiled_stop
from distilgpt2_api.text.tokenization.sequence_breakers import find_breakers
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MAX_STOP_BYTES = 8192
"""Maximum total length of a request's stop sequences. Their automaton takes up to 24 times as much memory, and a
millisecond per 1200 bytes."""
MAX_BREAKER_BYTES = 512
"""Maximum total length of DRY's sequence breakers. The vocabulary is searched for each beginning of each."""
PARAMETERS_WITH_CHOICES = tuple(entry for entry in PLAIN_PARAMETERS.values() if entry.choices)


def validate_request(request: GenerationRequest, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raise InvalidRequestError, with the parameter's name, if the model can't serve the request."""
    check_prompt(request.prompt_token_ids, config)
    check_context_length(len(request.prompt_token_ids), request.params.max_tokens, config)
    CompiledParams.of(request.params, config, tokenizer)


class CompiledParams:
    """Marks parameters as checked, and as compiled for the engine thread: once for all prompts and sequences that share
    them. A new field of `SamplingParams` with a length chosen by the client belongs here.
    """

    def __init__(self, params: SamplingParams, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Raises InvalidRequestError."""
        _check_params(params, config)
        EndingTokens.of(params, eos_token_ids=config.eos_token_ids)
        if params.stop:
            compiled_stop(params)
        if params.dry_multiplier:
            params.derive(SequenceBreakers, lambda: _compile_breakers(params.dry_sequence_breakers, tokenizer))
        if params.has_logits_processors:
            LogitsProcessors.of(params, eos_token_ids=config.eos_token_ids)

    @classmethod
    def of(cls, params: SamplingParams, config: ModelConfig, tokenizer: Tokenizer) -> Self:
        """Raises InvalidRequestError."""
        return params.derive(cls, lambda: cls(params, config, tokenizer))


def check_plain_params(values: Mapping[str, object]) -> dict[str, Any]:
    """Check plain sampling parameters from a program. Raises InvalidRequestError with the name and the bounds."""
    for name, value in values.items():
        entry = PLAIN_PARAMETERS.get(name)
        if entry is None:
            raise InvalidRequestError(f"unknown parameter: {name!r}", param=name)
        if not entry.allows(value):
            raise InvalidRequestError(f"{name} is {value!r}; it must be {entry.allowed}", param=name)
    return dict(values)


def _check_params(params: SamplingParams, config: ModelConfig) -> None:
    if params.min_tokens > params.max_tokens:
        raise InvalidRequestError(
            f"min_tokens is {params.min_tokens}; it must be at most max_tokens ({params.max_tokens})",
            param="min_tokens",
        )
    for entry in PARAMETERS_WITH_CHOICES:
        value = getattr(params, entry.name)
        if value not in entry.choices:
            choices = " or ".join(str(choice) for choice in entry.choices)
            raise InvalidRequestError(f"{entry.name} is {value}; it must be {choices}", param=entry.name)
    check_stop(params.stop)
    check_token_ids([token_id for token_id, _ in params.logit_bias], config, param="logit_bias")
    check_token_ids(params.stop_token_ids, config, param="stop_token_ids")
    for word in params.bad_words:
        if not word:
            raise InvalidRequestError("bad_words contains a word without tokens", param="bad_words")
        check_token_ids(word, config, param="bad_words")
    check_token_ids(params.allowed_token_ids, config, param="allowed_token_ids")


def _compile_breakers(texts: Sequence[str], tokenizer: Tokenizer) -> SequenceBreakers:
    check_num_bytes(texts, MAX_BREAKER_BYTES, param="dry_sequence_breakers")
    try:
        return SequenceBreakers(find_breakers(texts, tokenizer))
    except InvalidRequestError as error:
        message = str(error).replace("prompt", "dry_sequence_breakers", 1)
        raise InvalidRequestError(message, param="dry_sequence_breakers") from error


def check_priority(priority: int, caller: Caller) -> None:
    """Raise InvalidRequestError if the priority is below the caller's minimum."""
    min_priority = caller.limits.min_priority or 0
    if priority < min_priority:
        raise InvalidRequestError(
            f"priority {priority} is below your minimum of {min_priority}: leave it out, or ask the operator for a key"
            " with a lower min_priority",
            param="priority",
        )


def check_stop(stop: Sequence[str], *, param: str = "stop") -> None:
    """Raise InvalidRequestError if the stop sequences are too long together. `param` is their name in the request."""
    check_num_bytes(stop, MAX_STOP_BYTES, param=param)


def check_num_bytes(texts: Sequence[str], max_bytes: int, *, param: str) -> None:
    """Raise InvalidRequestError if the texts together have more than `max_bytes` bytes."""
    num_bytes = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    if num_bytes > max_bytes:
        raise InvalidRequestError(
            f"{param}: {num_bytes} bytes of UTF-8 together; the maximum is {max_bytes}, so send fewer or shorter ones",
            param=param,
        )


def check_prompt(token_ids: Sequence[int], config: ModelConfig) -> None:
    """Raise InvalidRequestError if there is no token id, or one is outside the vocabulary."""
    if not token_ids:
        raise InvalidRequestError("prompt is empty: it needs at least one token", param="prompt")
    check_token_ids(token_ids, config, param="prompt")


def check_context_length(
    num_prompt_tokens: int,
    max_tokens: int,
    config: ModelConfig,
    *,
    param: str = "max_tokens",
    prompt_param: str = "prompt",
) -> None:
    """Raise ContextLengthError if prompt and completion don't fit. `param` and `prompt_param`: names in the request."""
    num_tokens = num_prompt_tokens + max_tokens
    if num_tokens > config.num_positions:
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{num_tokens} tokens ({num_prompt_tokens} in the {prompt_param}, {max_tokens} in the completion)",
            shorten=f"the {prompt_param} or {param}",
            param=prompt_param if num_prompt_tokens >= config.num_positions else param,
        )


def max_prompt_characters(tokenizer: Tokenizer, config: ModelConfig) -> int:
    """Length above which no text fits, because no token has more bytes than the longest one."""
    return config.num_positions * tokenizer.max_token_bytes


def check_num_characters(
    num_characters: int, tokenizer: Tokenizer, config: ModelConfig, *, what: str, param: str
) -> None:
    """Raise ContextLengthError for a text that can't fit, however it is tokenized. `what` describes the text."""
    if num_characters > max_prompt_characters(tokenizer, config):
        num_tokens = -(-num_characters // tokenizer.max_token_bytes)
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{num_tokens} tokens or more ({num_characters} characters in {what})",
            shorten=what,
            param=param,
        )


def check_token_ids(token_ids: Sequence[int], config: ModelConfig, *, param: str) -> None:
    """Raise InvalidRequestError if a token id is outside the vocabulary."""
    if not token_ids:
        return
    largest, smallest = max(token_ids), min(token_ids)
    if smallest < 0 or largest >= config.vocab_size:
        outside = smallest if smallest < 0 else largest
        raise InvalidRequestError(
            f"{param} has token id {outside}, outside the vocabulary: 0 to {config.vocab_size - 1}", param=param
        )
