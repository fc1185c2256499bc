"""llama.cpp's forms of a prompt to token ids, and its forms of biases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.engine.validation import check_num_bytes, check_prompt, check_token_ids
from distilgpt2_api.server.generation.prompts import EncodedPrompt, encode_texts
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.schema.sampling import MAX_TOKEN_IDS
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

FORMS = "prompt must be a string, a list of token ids and strings, an object with prompt_string, or a list of these"
MAX_BIASED_BYTES = 8192
"""All texts with a bias together have at most this many: each is tokenized."""
MAX_BIAS = 100

Part = str | int


async def encode_prompts(
    prompt: object, *, encoder: TextEncoder, config: ModelConfig, max_prompts: int
) -> list[EncodedPrompt]:
    """One per prompt. A list with a number in it is one prompt. Raises InvalidRequestError(param="prompt")."""
    match prompt:
        case []:
            raise _invalid("prompt is empty")
        case [*items] if not any(type(item) is int for item in items):
            prompts = [_parts_of(item) for item in items]
        case _:
            prompts = [_parts_of(prompt)]
    if len(prompts) > max_prompts:
        raise _invalid(f"prompt has {len(prompts)} prompts; this service allows at most {max_prompts} in one request")
    texts = [part for parts in prompts for part in parts if isinstance(part, str)]
    encoded = await encode_texts(texts, encoder=encoder, config=config, add_special_tokens=False)
    token_ids = iter([prompt.token_ids for prompt in encoded])
    return [_assemble(parts, token_ids, encoder.tokenizer, config) for parts in prompts]


def _parts_of(prompt: object) -> Sequence[Part]:
    """The texts and token ids of one prompt."""
    match prompt:
        case str():
            return [prompt]
        case {"prompt_string": str() as text, **others}:
            for name, value in others.items():
                if name != "multimodal_data":
                    raise _invalid(f"prompt: unknown field {str(name)[:100]!r}")
                if value not in (None, []):
                    raise UnsupportedParameterError(
                        "prompt.multimodal_data is not supported: the model reads only text", param="prompt"
                    )
            return [text]
        case [_, *_] if all(isinstance(part, str) or type(part) is int for part in prompt):
            return [part for part in prompt if isinstance(part, str | int)]
    raise _invalid(FORMS)


def _assemble(
    parts: Sequence[Part], encoded: Iterator[tuple[int, ...]], tokenizer: Tokenizer, config: ModelConfig
) -> EncodedPrompt:
    """The special tokens that the tokenizer's files want come before a prompt that begins with a text."""
    frame = tokenizer.files.frame
    token_ids = [*frame.before] if isinstance(parts[0], str) else []
    for part in parts:
        token_ids += next(encoded) if isinstance(part, str) else [part]
    if len(parts) == 1 and isinstance(parts[0], str):
        token_ids += frame.after
    check_prompt(token_ids, config)
    return EncodedPrompt(None, tuple(token_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Biases:
    biases: Mapping[int, float]
    """By token id."""
    banned: tuple[int, ...]
    """Tokens that are never sampled."""


def read_biases(value: object, *, tokenizer: Tokenizer, config: ModelConfig) -> Biases:
    """Pairs of a token and its bias, as a list or as an object. Raises InvalidRequestError(param="logit_bias")."""
    pairs: list[tuple[object, object]] = []
    match value:
        case None:
            pass
        case dict():
            pairs = [(int(key) if key.isascii() and key.isdecimal() else key, bias) for key, bias in value.items()]
        case list() if all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            pairs = [(token, bias) for token, bias in value]
        case _:
            raise _invalid_bias("logit_bias must be a list of pairs or an object")
    if len(pairs) > MAX_TOKEN_IDS:
        raise _invalid_bias(f"logit_bias has {len(pairs)} tokens; at most {MAX_TOKEN_IDS} are allowed")
    check_num_bytes([token for token, _ in pairs if isinstance(token, str)], MAX_BIASED_BYTES, param="logit_bias")
    biases: dict[int, float] = {}
    banned: list[int] = []
    for token, bias in pairs:
        token_ids = _token_ids(token, tokenizer)
        check_token_ids(token_ids, config, param="logit_bias")
        if bias is False:
            banned += token_ids
        elif isinstance(bias, bool) or not isinstance(bias, int | float) or abs(bias) > MAX_BIAS:
            raise _invalid_bias(f"logit_bias: a bias must be a number from -{MAX_BIAS} to {MAX_BIAS}, or false")
        else:
            biases |= dict.fromkeys(token_ids, float(bias))
    return Biases(biases=biases, banned=tuple(dict.fromkeys(banned)))


def _token_ids(token: object, tokenizer: Tokenizer) -> list[int]:
    if type(token) is int:
        return [token]
    if isinstance(token, str) and token:
        return tokenizer.encode(token)
    raise _invalid_bias("logit_bias: a token must be a token id or a text that is not empty")


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="prompt")


def _invalid_bias(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="logit_bias")
