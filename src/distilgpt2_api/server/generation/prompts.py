"""Prompts, in every form that clients send, to token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.validation import check_num_characters, check_prompt
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.text.tokenization.tokenizer_frame import NO_FRAME, Frame


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    text: str | None
    """As the client sent it; None if it sent token ids."""
    token_ids: tuple[int, ...]
    frame: Frame = NO_FRAME
    """The first and last of `token_ids`: those that the tokenizer put around the text's own."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a long prompt is used: the rest is cut off, not refused."""

    max_tokens: int
    """At least 1."""
    keeps_end: bool
    """Whether the prompt's last tokens are kept, rather than its first."""

    def cut(self, token_ids: Sequence[int], *, num_around: int = 0) -> Sequence[int]:
        """`num_around`: tokens that will be added around these, and count too."""
        max_tokens = self.max_tokens - num_around
        return token_ids[-max_tokens:] if self.keeps_end else token_ids[:max_tokens]


async def encode_prompts(
    prompt: object,
    *,
    encoder: TextEncoder,
    config: ModelConfig,
    max_prompts: int,
    truncation: Truncation | None,
    add_special_tokens: bool = True,
) -> list[EncodedPrompt]:
    """One per prompt. `add_special_tokens` applies to texts, as in `encode_texts`.

    Raises InvalidRequestError(param="prompt").
    """
    encode = partial(
        encode_texts, encoder=encoder, config=config, truncation=truncation, add_special_tokens=add_special_tokens
    )
    match prompt:
        case None:
            return [EncodedPrompt(None, (_end_of_text(encoder.tokenizer, config),))]
        case str():
            return await encode([prompt])
        case []:
            raise _invalid("prompt is empty")
        case list() if all(isinstance(item, str) for item in prompt):
            _check_count(prompt, max_prompts)
            return await encode(prompt)
        case list() if are_token_ids(prompt):
            return [_encoded(prompt, config, truncation)]
        case list() if all(are_token_ids(item) for item in prompt):
            _check_count(prompt, max_prompts)
            return [_encoded(item, config, truncation) for item in prompt]
    raise _invalid("prompt must be a string, a list of strings, a list of token ids or a list of lists of token ids")


async def encode_texts(
    texts: Sequence[str],
    *,
    encoder: TextEncoder,
    config: ModelConfig,
    truncation: Truncation | None = None,
    add_special_tokens: bool = True,
    param: str = "prompt",
) -> list[EncodedPrompt]:
    """Raises InvalidRequestError, and ContextLengthError without tokenizing a text that cannot fit.

    `add_special_tokens`: add the tokens that the tokenizer's files want around a text. `param`: the field's name.
    """
    for text in texts:
        if not text:
            raise InvalidRequestError(f"{param} is empty: it needs at least one character", param=param)
        if truncation is None:
            check_num_characters(len(text), encoder.tokenizer, config, what=f"the {param}", param=param)
    encoded = await encoder.encode(texts)
    frame = encoder.tokenizer.files.frame if add_special_tokens else NO_FRAME
    return [_framed(text, token_ids, frame, truncation) for text, token_ids in zip(texts, encoded, strict=True)]


def _framed(text: str, token_ids: Sequence[int], frame: Frame, truncation: Truncation | None) -> EncodedPrompt:
    """Only the text's own tokens are cut, not those around it; as in the `tokenizers` library."""
    if truncation is None or len(token_ids) + len(frame) <= truncation.max_tokens:
        return EncodedPrompt(text, (*frame.before, *token_ids, *frame.after), frame)
    if len(frame) >= truncation.max_tokens:
        return EncodedPrompt(None, tuple(truncation.cut(token_ids)))
    kept = truncation.cut(token_ids, num_around=len(frame))
    return EncodedPrompt(None, (*frame.before, *kept, *frame.after))


def are_token_ids(value: object) -> TypeGuard[list[int]]:
    """An empty list counts as token ids. (A bool is an int, but not a token id.)"""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _end_of_text(tokenizer: Tokenizer, config: ModelConfig) -> int:
    token_id = tokenizer.end_of_text_id(config)
    if token_id is None:
        raise _invalid("prompt is required: this model has no end-of-text token to start from")
    return token_id


def _encoded(token_ids: Sequence[int], config: ModelConfig, truncation: Truncation | None) -> EncodedPrompt:
    check_prompt(token_ids, config)
    return EncodedPrompt(None, tuple(token_ids if truncation is None else truncation.cut(token_ids)))


def _check_count(prompts: Sequence[object], max_prompts: int) -> None:
    if len(prompts) > max_prompts:
        raise _invalid(f"prompt has {len(prompts)} prompts; this service allows at most {max_prompts} in one request")


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="prompt")
