"""Reads which tokens a tokenizer puts before and after a text, such as a BOS token.

For a `tokenizer.json` its post-processor alone decides, as in `transformers`. For a `vocab.json` the flags
`add_bos_token` and `add_eos_token` of `tokenizer_config.json` decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_name, safe_repr
from distilgpt2_api.text.tokenization.tokenizer_description import read_steps

MAX_FRAME_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """Tokens before and after a text's own tokens."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def around(self, other: Frame) -> Frame:
        return Frame(self.before + other.before, other.after + self.after)

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


NO_FRAME = Frame()


def read_post_processor(path: Path, post_processor: Any) -> Frame:
    """The tokens that the post-processor adds to a single text.

    Raises ModelFormatError if it is malformed, UnsupportedModelError if it does more than to add tokens around a text.
    """
    frame = NO_FRAME
    for step in read_steps(path, post_processor, "post_processor", "processors"):
        frame = _frame_of(path, step).around(frame)
    if len(frame) > MAX_FRAME_TOKENS:
        raise UnsupportedModelError(
            f"{path}: post_processor adds {len(frame)} tokens; at most {MAX_FRAME_TOKENS} are supported"
        )
    return frame


def read_flags(
    path: Path, config: Mapping[str, Any], roles: Mapping[str, str], token_id: Callable[[str], int | None], default: str
) -> Frame:
    """The tokens that `add_bos_token` and `add_eos_token` add. `default`: the text of a token without a role."""

    def ids_of(flag: str, role: str) -> tuple[int, ...]:
        if config.get(flag) is not True:
            return ()
        text = roles.get(role, default)
        if (found := token_id(text)) is None:
            raise ModelFormatError(f"{path}: {flag} is true, but the vocabulary has no {safe_repr(text)}")
        return (found,)

    return Frame(ids_of("add_bos_token", "bos_token"), ids_of("add_eos_token", "eos_token"))


def _frame_of(path: Path, step: dict[str, Any]) -> Frame:
    match step:
        case {"type": "ByteLevel"}:  # only trims offsets, which are not used here
            return NO_FRAME
        case {"type": "TemplateProcessing", "single": list() as pieces, "special_tokens": dict() as tokens}:
            return _read_template(path, pieces, tokens)
        case {
            "type": "RobertaProcessing" | "BertProcessing",
            "cls": [str(), first],
            "sep": [str(), last],
        } if _is_token_id(first) and _is_token_id(last):
            return Frame((first,), (last,))
        case {"type": "TemplateProcessing" | "RobertaProcessing" | "BertProcessing" as kind}:
            raise ModelFormatError(f"{path}: post_processor: malformed {kind}")
        case {"type": str() as kind}:
            raise UnsupportedModelError(f"{path}: post_processor {safe_name(kind)} is not supported")
    raise ModelFormatError(f"{path}: post_processor: {safe_repr(step)} must be an object with a type")


def _read_template(path: Path, pieces: list[Any], tokens: dict[str, Any]) -> Frame:
    before: list[int] = []
    after: list[int] = []
    num_texts = 0
    for piece in pieces:
        match piece:
            case {"Sequence": {"id": "A"}}:
                num_texts += 1
            case {"SpecialToken": {"id": str() as name}}:
                (after if num_texts else before).extend(_ids_of(path, name, tokens.get(name)))
            case _:
                raise ModelFormatError(f"{path}: post_processor: {safe_repr(piece)} must be a piece of a template")
    if num_texts != 1:
        raise UnsupportedModelError(f"{path}: post_processor: its template has the text {num_texts} times, not once")
    return Frame(tuple(before), tuple(after))


def _ids_of(path: Path, name: str, token: Any) -> list[int]:
    match token:
        case {"ids": list() as ids} if ids and all(map(_is_token_id, ids)):
            return ids
    raise ModelFormatError(f"{path}: post_processor: special token {safe_name(name)} must have a list of ids")


def _is_token_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32
