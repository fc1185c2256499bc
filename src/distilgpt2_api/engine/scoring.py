"""Scores given texts: prompts whose tokens get log-probabilities, without sampling."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import ContextLengthError, GenerationError, InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.validation import check_num_characters
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have."""
MAX_EXPONENT = 700.0
"""exp of this is still a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A text to score, and the context before it, which is not scored."""

    name: str
    """The client's name for it, for error messages."""
    text: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPrompt:
    """Token ids, those of the context first. The context has at least one token: the end of text if it is empty."""

    token_ids: tuple[int, ...]
    num_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    logprob: float
    """Natural logarithm of the joint probability of the scored tokens."""
    num_tokens: int
    """Scored tokens."""
    num_bytes: int
    """UTF-8 bytes of the scored tokens."""
    is_greedy: bool
    """Whether every scored token was the likeliest at its position."""

    @property
    def perplexity(self) -> float:
        """Per token: exp of the mean negative log-likelihood."""
        return perplexity_of(self.logprob, self.num_tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """None if the tokens have no text, like the padding tokens of some models."""
        return bits_per_byte_of(self.logprob, self.num_bytes) if self.num_bytes else None

    def as_fields(self) -> dict[str, object]:
        """The score as JSON fields."""
        return asdict(self) | {"perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}


def perplexity_of(logprob: float, num_tokens: int) -> float:
    """Perplexity of `num_tokens` tokens whose joint probability has the natural logarithm `logprob`."""
    return math.exp(min(-logprob / num_tokens, MAX_EXPONENT))


def bits_per_byte_of(logprob: float, num_bytes: int) -> float:
    """Bits per byte of a text of `num_bytes` bytes whose joint probability has the natural logarithm `logprob`."""
    return -logprob / math.log(2) / num_bytes


def encode_passages(passages: Sequence[Passage], tokenizer: Tokenizer, config: ModelConfig) -> list[ScoringPrompt]:
    """Tokenizes context and text as one, and splits where the context's own tokens end, as lm-evaluation-harness does.

    White space at the end of a context belongs to the text, because GPT-2's tokens begin with their spaces. The context
    is preceded by the tokens that the tokenizer's files put before a text. Raises InvalidRequestError(param=name).
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
        _raise_for_passage(passages, tokenizer)
        raise
    return [
        scoring_prompt(
            (*tokenizer.files.frame.before, *context_ids),
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
    """Raises InvalidRequestError(param=name), or ContextLengthError if the model has too few positions."""
    if not text_ids:
        raise InvalidRequestError(f"{name} adds no token to its context: together they are one token", param=name)
    first_id = context_ids[0] if context_ids else tokenizer.end_of_text_id(config)
    if first_id is None:
        raise InvalidRequestError(f"{name} needs a context: this model has no end of text to start with", param=name)
    context = tuple(context_ids) or (first_id,)
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
    """A request that only prefills. The context needs no logits."""
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=prompt.token_ids,
        params=SamplingParams(max_tokens=0, num_prompt_logprobs=1, first_scored_token=prompt.num_context_tokens),
        is_streamed=False,
        priority=priority,
        deadline_s=deadline_s,
    )


def score_of(logprobs: Sequence[TokenLogprobs], token_bytes: Sequence[bytes]) -> Score:
    """`logprobs`: those of the scored tokens, each with the likeliest token. `token_bytes`: the tokenizer's, by token
    id.

    Raises GenerationError if the logits are NaN.
    """
    logprob = math.fsum(max(token.logprob, MIN_LOGPROB) for token in logprobs)
    if math.isnan(logprob):
        raise GenerationError("the model's logits are not numbers")
    return Score(
        logprob=logprob,
        num_tokens=len(logprobs),
        num_bytes=sum(len(token_bytes[token.token_id]) for token in logprobs if token.token_id < len(token_bytes)),
        # Equal logits give equal floats: the denominator is the same.
        is_greedy=all(token.logprob >= token.top[0][1] for token in logprobs),
    )


def _raise_for_passage(passages: Sequence[Passage], tokenizer: Tokenizer) -> None:
    """Raise the tokenizer's error for the first passage that it refuses, with the passage's name."""
    for passage in passages:
        try:
            tokenizer.encode(passage.context + passage.text)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{passage.name}: {error}", param=passage.name) from None
