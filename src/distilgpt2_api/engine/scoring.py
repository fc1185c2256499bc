"""How likely a model finds given texts: prompts of which tokens are scored and none is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, GenerationError, InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.validation import check_num_characters
from distilgpt2_api.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""JSON has no minus infinity."""
MAX_EXPONENT = 700.0
"""e to it is still a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A text to be scored, and what stands before it, which is not."""

    name: str
    """What its sender calls it: errors say it."""
    text: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPrompt:
    """Token ids, those of the context first. There is always one: the end of text, where nothing else was given."""

    token_ids: tuple[int, ...]
    num_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What became of one prompt."""

    logprob: float
    """Natural logarithm of the scored tokens' joint probability."""
    num_tokens: int
    """Scored."""
    num_bytes: int
    """That the scored tokens stand for, in UTF-8."""
    is_greedy: bool
    """No token was ever likelier than the one that stands there."""

    @property
    def perplexity(self) -> float:
        """Per token: e to the mean of the negative log-likelihoods."""
        return perplexity_of(self.logprob, self.num_tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """None for tokens without text, as padded models have them."""
        return bits_per_byte_of(self.logprob, self.num_bytes) if self.num_bytes else None

    def as_fields(self) -> dict[str, object]:
        """For JSON."""
        return {
            "logprob": self.logprob,
            "num_tokens": self.num_tokens,
            "num_bytes": self.num_bytes,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "is_greedy": self.is_greedy,
        }


def perplexity_of(logprob: float, num_tokens: int) -> float:
    """Of so many tokens whose joint probability's natural logarithm is `logprob`."""
    return math.exp(min(-logprob / num_tokens, MAX_EXPONENT))


def bits_per_byte_of(logprob: float, num_bytes: int) -> float:
    """Of a text of so many bytes whose tokens' joint probability has that natural logarithm."""
    return -logprob / math.log(2) / num_bytes


def encode_passages(passages: Sequence[Passage], tokenizer: Tokenizer, config: ModelConfig) -> list[ScoringPrompt]:
    """Text and context are tokenized as one and cut where the context's own tokens end, as lm-evaluation-harness does:
    white space at a context's end belongs to the text, for GPT-2's tokens begin with their spaces. Before the context
    stands what the tokenizer's files put before a text.

    Raises InvalidRequestError, whose `param` is the passage's name.
    """
    texts: list[str] = []
    for passage in passages:
        if not passage.text:
            raise InvalidRequestError(f"{passage.name} is empty: there is nothing to score", param=passage.name)
        num_characters = len(passage.context) + len(passage.text)
        check_num_characters(num_characters, tokenizer, config, what=passage.name, param=passage.name)
        texts += (passage.context.rstrip(), passage.context + passage.text)
    try:
        encoded = tokenizer.encode_batch(texts)
    except InvalidRequestError:
        _blame(passages, tokenizer)
        raise
    return [
        scoring_prompt(
            (*tokenizer.frame.before, *context_ids),
            whole_ids[len(context_ids) :],
            name=passage.name,
            tokenizer=tokenizer,
            config=config,
        )
        for passage, context_ids, whole_ids in zip(passages, encoded[::2], encoded[1::2], strict=True)
    ]


def scoring_prompt(
    context_ids: Sequence[int], text_ids: Sequence[int], *, name: str, tokenizer: Tokenizer, config: ModelConfig
) -> ScoringPrompt:
    """Raises InvalidRequestError(param=name); its kind ContextLengthError, where the model has too few positions."""
    if not text_ids:
        raise InvalidRequestError(f"{name} adds no token to its context: the two are one token together", param=name)
    context = tuple(context_ids) or (_end_of_text_id(tokenizer, config, name=name),)
    token_ids = context + tuple(text_ids)
    if len(token_ids) > config.num_positions:
        raise ContextLengthError.exceeding(
            config.num_positions,
            f"{len(token_ids)} tokens ({len(text_ids)} in {name}, {len(context)} before them)",
            shorten=name,
            param=name,
        )
    return ScoringPrompt(token_ids=token_ids, num_context_tokens=len(context))


def scoring_request(
    prompt: ScoringPrompt, *, request_id: str, priority: int = 0, deadline_s: float | None = None
) -> GenerationRequest:
    """Prefill only. The context costs no logits."""
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=prompt.token_ids,
        params=SamplingParams(max_tokens=0, num_prompt_logprobs=1, first_scored_token=prompt.num_context_tokens),
        is_streamed=False,
        priority=priority,
        deadline_s=deadline_s,
    )


def score_of(logprobs: Sequence[TokenLogprobs], token_bytes: Sequence[bytes]) -> Score:
    """`logprobs`: of the scored tokens, each with the likeliest one; `token_bytes` by token id, as the tokenizer's.

    Raises GenerationError where the model computed no numbers.
    """
    logprob = math.fsum(max(token.logprob, MIN_LOGPROB) for token in logprobs)
    if math.isnan(logprob):
        raise GenerationError("the model's logits are not numbers")
    return Score(
        logprob=logprob,
        num_tokens=len(logprobs),
        num_bytes=sum(len(token_bytes[token.token_id]) for token in logprobs if token.token_id < len(token_bytes)),
        # The same logit and the same denominator give the same float.
        is_greedy=all(token.logprob >= token.top[0][1] for token in logprobs),
    )


def _blame(passages: Sequence[Passage], tokenizer: Tokenizer) -> None:
    """Raise the tokenizer's error for the first passage that it refuses, with that one's name."""
    for passage in passages:
        try:
            tokenizer.encode(passage.context + passage.text)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{passage.name}: {error}", param=passage.name) from None


def _end_of_text_id(tokenizer: Tokenizer, config: ModelConfig, *, name: str) -> int:
    token_id = tokenizer.end_of_text_id(config)
    if token_id is None:
        raise InvalidRequestError(f"{name} needs a context: this model has no end of text to begin with", param=name)
    return token_id
