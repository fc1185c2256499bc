"""What a request may ask of this model."""

from __future__ import annotations

from collections.abc import Sequence

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.text.tokenizer import Tokenizer


def validate_request(request: GenerationRequest, config: ModelConfig) -> None:
    """Raise InvalidRequestError, with the parameter's name, for what this model can't do at all."""
    params = request.params
    check_prompt(request.prompt_token_ids, config)
    check_context_length(len(request.prompt_token_ids), params.max_tokens, config)
    check_token_ids([token_id for token_id, _ in params.logit_bias], config, param="logit_bias")
    check_token_ids(params.stop_token_ids, config, param="stop_token_ids")
    for word in params.bad_words:
        if not word:
            raise InvalidRequestError("bad_words has a word without tokens", param="bad_words")
        check_token_ids(word, config, param="bad_words")
    check_token_ids(params.allowed_token_ids, config, param="allowed_token_ids")


def check_prompt(token_ids: Sequence[int], config: ModelConfig) -> None:
    """Raise InvalidRequestError unless there are token ids, and all are the model's."""
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
    """Raise ContextLengthError unless prompt and completion fit; the names are the caller's own."""
    num_tokens = num_prompt_tokens + max_tokens
    if num_tokens > config.num_positions:
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{num_tokens} tokens ({num_prompt_tokens} in the {prompt_param}, {max_tokens} in the completion)",
            shorten=f"the {prompt_param} or {param}",
            param=prompt_param if num_prompt_tokens >= config.num_positions else param,
        )


def max_prompt_characters(tokenizer: Tokenizer, config: ModelConfig) -> int:
    """Of a text that may fit: no token stands for more bytes than the longest."""
    return config.num_positions * tokenizer.max_token_bytes


def check_num_characters(
    num_characters: int, tokenizer: Tokenizer, config: ModelConfig, *, what: str, param: str
) -> None:
    """Raise ContextLengthError for a text that can't fit, however it is tokenized; `what` says which text."""
    if num_characters > max_prompt_characters(tokenizer, config):
        num_tokens = -(-num_characters // tokenizer.max_token_bytes)
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{num_tokens} tokens or more ({num_characters} characters in {what})",
            shorten=what,
            param=param,
        )


def check_token_ids(token_ids: Sequence[int], config: ModelConfig, *, param: str) -> None:
    """Raise InvalidRequestError unless all are the model's."""
    if not token_ids:
        return
    largest, smallest = max(token_ids), min(token_ids)
    if smallest < 0 or largest >= config.vocab_size:
        outside = smallest if smallest < 0 else largest
        raise InvalidRequestError(
            f"{param} has token id {outside}, outside the vocabulary: 0 to {config.vocab_size - 1}", param=param
        )
