"""Prompts in every form that clients send them, to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.validation import check_num_characters, check_prompt
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.text.tokenizer import Tokenizer
from distilgpt2_api.text.tokenizer_frame import NO_FRAME, Frame


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    text: str | None
    """As it was sent; None where token ids were."""
    token_ids: tuple[int, ...]
    frame: Frame = NO_FRAME
    """Of these, the first and last ones that the tokenizer put around the text's own."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a long prompt is used: what does not fit is cut off, and not refused."""

    max_tokens: int
    """At least 1."""
    keeps_end: bool
    """The prompt's last tokens are kept; else its first."""

    def cut(self, token_ids: Sequence[int], *, num_around: int = 0) -> Sequence[int]:
        """`num_around`: tokens that will stand around these, and count."""
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
    """One for each prompt; `add_special_tokens` is for texts, as in `encode_texts`.

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
    raise _invalid("prompt must be a string, a list of strings, a list of token ids or a list of such lists")


async def encode_texts(
    texts: Sequence[str],
    *,
    encoder: TextEncoder,
    config: ModelConfig,
    truncation: Truncation | None = None,
    add_special_tokens: bool = True,
    param: str = "prompt",
) -> list[EncodedPrompt]:
    """Raises InvalidRequestError, and ContextLengthError without tokenizing what can't fit.

    `add_special_tokens`: with those around each text that the tokenizer's files ask for. `param` is the caller's word
    for a prompt.
    """
    for text in texts:
        if not text:
            raise InvalidRequestError(f"{param} is empty: it needs at least one character", param=param)
        if truncation is None:
            check_num_characters(len(text), encoder.tokenizer, config, what=f"the {param}", param=param)
    encoded = await encoder.encode(texts)
    frame = encoder.tokenizer.frame if add_special_tokens else NO_FRAME
    return [_framed(text, token_ids, frame, truncation) for text, token_ids in zip(texts, encoded, strict=True)]


def _framed(text: str, token_ids: Sequence[int], frame: Frame, truncation: Truncation | None) -> EncodedPrompt:
    """The text's end, or beginning, is cut off, not what stands around it; as in the `tokenizers` library."""
    if truncation is None or len(token_ids) + len(frame) <= truncation.max_tokens:
        return EncodedPrompt(text, (*frame.before, *token_ids, *frame.after), frame)
    if len(frame) >= truncation.max_tokens:
        return EncodedPrompt(None, tuple(truncation.cut(token_ids)))
    kept = truncation.cut(token_ids, num_around=len(frame))
    return EncodedPrompt(None, (*frame.before, *kept, *frame.after))


def are_token_ids(value: object) -> TypeGuard[list[int]]:
    """An empty list is one of ids. (A bool is an int, but no token id.)"""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _end_of_text(tokenizer: Tokenizer, config: ModelConfig) -> int:
    token_id = tokenizer.end_of_text_id(config)
    if token_id is None:
        raise _invalid("prompt is required: this model has no end of text to begin with")
    return token_id


def _encoded(token_ids: Sequence[int], config: ModelConfig, truncation: Truncation | None) -> EncodedPrompt:
    check_prompt(token_ids, config)
    return EncodedPrompt(None, tuple(token_ids if truncation is None else truncation.cut(token_ids)))


def _check_count(prompts: Sequence[object], max_prompts: int) -> None:
    if len(prompts) > max_prompts:
        raise _invalid(f"prompt has {len(prompts)} prompts; at most {max_prompts} fit one request")


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="prompt")
