"""Reads special tokens from the files beside a vocabulary, with the same precedence as `transformers`.

`tokenizer_config.json` goes first. The older `special_tokens_map.json` and `added_tokens.json` count only if it has no
`added_tokens_decoder`; then the map wins over it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import has_file, parse_json_object, read_model_file, safe_repr
from distilgpt2_api.core.model_folder import ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE
from distilgpt2_api.text.tokenization.tokenizer_description import MAX_ADDED_TOKENS, check_added_tokens, check_ids

MAX_FILE_BYTES = 8 * 1024 * 1024
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
UNNAMED = ("additional_special_tokens", "extra_special_tokens")
"""Tokens without a role: a list, or an object of names and tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The special tokens that a model folder's files define. The vocabulary need not have them."""

    roles: Mapping[str, str]
    """The text of each token in `ROLES` that a file defines."""
    texts: frozenset[str]
    """Texts of all special tokens, with a role or without."""
    added: Mapping[int, Mapping[str, Any]]
    """By id: tokens to add to the vocabulary if it lacks them, in the form of `tokenizer.json`."""
    added_path: Path


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """The folder's `tokenizer_config.json`, empty if it has none. Raises ModelFormatError."""
    path = folder / TOKENIZER_CONFIG_FILE
    return parse_json_object(path, read_model_file(path, MAX_FILE_BYTES)) if has_file(path) else {}


def read_special_tokens(folder: Path, config: Mapping[str, Any]) -> SpecialTokens:
    """`config` is the folder's `tokenizer_config.json`. Raises ModelFormatError, which names the file."""
    path = added_path = folder / TOKENIZER_CONFIG_FILE
    declared = dict(config)
    decoder = declared.get("added_tokens_decoder")
    added: list[dict[str, Any]] = []
    if decoder is not None:
        added = check_added_tokens(path, _listed(path, decoder))
    elif has_file(folder / SPECIAL_TOKENS_FILE):
        path = folder / SPECIAL_TOKENS_FILE
        declared |= parse_json_object(path, read_model_file(path, MAX_FILE_BYTES))
    roles = {role: _text_of(path, role, declared[role]) for role in ROLES if declared.get(role) is not None}
    texts = frozenset(
        (*roles.values(), *(text for name in UNNAMED for text in _texts_of(path, name, declared.get(name))))
    )
    if decoder is None and has_file(folder / ADDED_TOKENS_FILE):
        added_path = folder / ADDED_TOKENS_FILE
        added = _read_added(added_path, texts)
    return SpecialTokens(roles=roles, texts=texts, added={token["id"]: token for token in added}, added_path=added_path)


def _read_added(path: Path, special: frozenset[str]) -> list[dict[str, Any]]:
    """Tokens and their ids. A token is special only if `special` names it."""
    ids = check_ids(path, parse_json_object(path, read_model_file(path, MAX_FILE_BYTES)))
    tokens = [{"id": token_id, "content": text, "special": text in special} for text, token_id in ids.items()]
    return check_added_tokens(path, tokens)


def _listed(path: Path, decoder: Any) -> list[Any]:
    """`{"0": {"content": …}}` in the form of `tokenizer.json`."""
    if not isinstance(decoder, dict) or not all(key.isdecimal() and len(key) <= 10 for key in decoder):
        raise ModelFormatError(f"{path}: added_tokens_decoder must be an object of token ids and tokens")
    return [{**token, "id": int(key)} if isinstance(token, dict) else token for key, token in decoder.items()]


def _texts_of(path: Path, name: str, tokens: Any) -> list[str]:
    items = [*tokens.values()] if isinstance(tokens, dict) else [] if tokens is None else tokens
    if not isinstance(items, list) or len(items) > MAX_ADDED_TOKENS:
        raise ModelFormatError(f"{path}: {name} must be a list of at most {MAX_ADDED_TOKENS} tokens")
    return [_text_of(path, name, item) for item in items]


def _text_of(path: Path, name: str, token: Any) -> str:
    match token:
        case str() | {"content": str()}:
            text = token if isinstance(token, str) else token["content"]
            check_ids(path, {text: 0})
            return text
    raise ModelFormatError(
        f"{path}: {name} is {safe_repr(token)}; it must be a string, or an object with the string as `content`"
    )
