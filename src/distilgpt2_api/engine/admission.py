"""Who gets in: what a request may ask of this model, and how much may wait."""

from __future__ import annotations

from collections.abc import Sequence

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, InvalidRequestError, OverloadedError
from distilgpt2_api.core.request import GenerationRequest

MAX_RETRY_AFTER_S = 120.0
TOKENS_PER_SECOND_GUESS = 1000.0
"""For `Retry-After` only: a modest two-core machine, so that clients come back late rather than in vain."""


def validate_request(request: GenerationRequest, config: ModelConfig) -> None:
    """Raise InvalidRequestError, with the parameter's name, for what this model can't do at all."""
    params = request.params
    check_prompt(request.prompt_token_ids, config)
    check_context_length(len(request.prompt_token_ids), params.max_tokens, config)
    _check_token_ids([token_id for token_id, _ in params.logit_bias], config, param="logit_bias")
    _check_token_ids(params.stop_token_ids, config, param="stop_token_ids")
    for word in params.bad_words:
        if not word:
            raise InvalidRequestError("bad_words has a word without tokens", param="bad_words")
        _check_token_ids(word, config, param="bad_words")
    _check_token_ids(params.allowed_token_ids, config, param="allowed_token_ids")


def check_prompt(token_ids: Sequence[int], config: ModelConfig) -> None:
    """Raise InvalidRequestError unless there are token ids, and all are the model's."""
    if not token_ids:
        raise InvalidRequestError("prompt is empty: it needs at least one token", param="prompt")
    _check_token_ids(token_ids, config, param="prompt")


def check_context_length(
    num_prompt_tokens: int, max_tokens: int, config: ModelConfig, *, param: str = "max_tokens"
) -> None:
    """Raise ContextLengthError unless prompt and completion fit; `param` is the caller's word for `max_tokens`."""
    num_tokens = num_prompt_tokens + max_tokens
    if num_tokens > config.num_positions:
        raise ContextLengthError(
            f"this model's maximum context length is {config.num_positions} tokens, but {num_prompt_tokens} prompt"
            f" tokens and {param} {max_tokens} were asked for ({num_tokens} in total)",
            param="prompt" if num_prompt_tokens >= config.num_positions else param,
        )


def _check_token_ids(token_ids: Sequence[int], config: ModelConfig, *, param: str) -> None:
    if not token_ids:
        return
    largest, smallest = max(token_ids), min(token_ids)
    if smallest < 0 or largest >= config.vocab_size:
        outside = smallest if smallest < 0 else largest
        raise InvalidRequestError(
            f"{param} has token id {outside}, outside the vocabulary: 0 to {config.vocab_size - 1}", param=param
        )


class Admission:
    """Bounds what waits, in requests and in tokens. A request waits until its first token; event loop only."""

    def __init__(self, *, max_waiting_requests: int, max_waiting_tokens: int) -> None:
        self._max_waiting_requests = max_waiting_requests
        self._max_waiting_tokens = max_waiting_tokens
        self._waiting: dict[str, int] = {}
        self._num_waiting_tokens = 0

    @property
    def num_waiting_requests(self) -> int:
        return len(self._waiting)

    @property
    def num_waiting_tokens(self) -> int:
        return self._num_waiting_tokens

    def admit(self, request: GenerationRequest) -> None:
        """Count a request in. Raises OverloadedError if it would pass a bound; an empty queue takes any request."""
        num_tokens = request.num_sequences * (len(request.prompt_token_ids) + request.params.max_tokens)
        if self._waiting:
            if len(self._waiting) >= self._max_waiting_requests:
                raise self._overloaded(f"{len(self._waiting)} requests wait already")
            if self._num_waiting_tokens + num_tokens > self._max_waiting_tokens:
                raise self._overloaded(f"requests for {self._num_waiting_tokens} tokens wait already")
        self._waiting[request.request_id] = num_tokens
        self._num_waiting_tokens += num_tokens

    def mark_started(self, request_id: str) -> None:
        """The request waits no longer. Idempotent."""
        self._num_waiting_tokens -= self._waiting.pop(request_id, 0)

    def release(self, request_id: str) -> None:
        """The request has ended, started or not."""
        self.mark_started(request_id)

    def _overloaded(self, what: str) -> OverloadedError:
        wait_s = self._num_waiting_tokens / TOKENS_PER_SECOND_GUESS
        return OverloadedError(
            f"the service is overloaded: {what}; try again later",
            retry_after_s=min(MAX_RETRY_AFTER_S, max(1.0, wait_s)),
        )
