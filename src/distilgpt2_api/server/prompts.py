"""Prompts in every form that clients send them, to token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.validation import check_num_characters, check_prompt
from distilgpt2_api.text.tokenizer import Tokenizer

OFFLOADED_CHARACTERS = 8192
"""Longer texts are tokenized on a thread: 8 KiB are about a millisecond, which the other streams don't notice."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    text: str | None
    """As it was sent; None where token ids were."""
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a long prompt is used: what does not fit is cut off, and not refused."""

    max_tokens: int
    """At least 1."""
    keeps_end: bool
    """The prompt's last tokens are kept; else its first."""

    def cut(self, prompt: EncodedPrompt) -> EncodedPrompt:
        if len(prompt.token_ids) <= self.max_tokens:
            return prompt
        kept = prompt.token_ids[-self.max_tokens :] if self.keeps_end else prompt.token_ids[: self.max_tokens]
        return EncodedPrompt(None, kept)


async def encode_prompts(
    prompt: object,
    *,
    tokenizer: Tokenizer,
    config: ModelConfig,
    max_prompts: int,
    truncation: Truncation | None,
) -> list[EncodedPrompt]:
    """One for each prompt. Raises InvalidRequestError(param="prompt")."""
    match prompt:
        case None:
            return [EncodedPrompt(None, (_end_of_text(tokenizer, config),))]
        case str():
            return await encode_texts([prompt], tokenizer=tokenizer, config=config, truncation=truncation)
        case []:
            raise _invalid("prompt is empty")
        case list() if all(isinstance(item, str) for item in prompt):
            _check_count(prompt, max_prompts)
            return await encode_texts(prompt, tokenizer=tokenizer, config=config, truncation=truncation)
        case list() if are_token_ids(prompt):
            return [_encoded(prompt, config, truncation)]
        case list() if all(are_token_ids(item) for item in prompt):
            _check_count(prompt, max_prompts)
            return [_encoded(item, config, truncation) for item in prompt]
    raise _invalid("prompt must be a string, a list of strings, a list of token ids or a list of such lists")


async def encode_texts(
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    config: ModelConfig,
    truncation: Truncation | None = None,
    param: str = "prompt",
) -> list[EncodedPrompt]:
    """Raises InvalidRequestError, and ContextLengthError without tokenizing what can't fit.

    `param` is the caller's word for a prompt.
    """
    for text in texts:
        if not text:
            raise InvalidRequestError(f"{param} is empty: it needs at least one character", param=param)
        if truncation is None:
            check_num_characters(len(text), tokenizer, config, what=f"the {param}", param=param)
    encoded = await tokenize(texts, tokenizer)
    prompts = [EncodedPrompt(text, tuple(token_ids)) for text, token_ids in zip(texts, encoded, strict=True)]
    return prompts if truncation is None else [truncation.cut(prompt) for prompt in prompts]


async def tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of texts, without holding up the event loop."""
    if sum(map(len, texts)) > OFFLOADED_CHARACTERS:
        return await asyncio.to_thread(tokenizer.encode_batch, texts)
    return [tokenizer.encode(text) for text in texts]


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
    prompt = EncodedPrompt(None, tuple(token_ids))
    return prompt if truncation is None else truncation.cut(prompt)


def _check_count(prompts: Sequence[object], max_prompts: int) -> None:
    if len(prompts) > max_prompts:
        raise _invalid(f"prompt has {len(prompts)} prompts; at most {max_prompts} fit one request")


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="prompt")
