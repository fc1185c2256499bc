"""Reads a model folder's tokenizer in any form that GPT-2 checkpoints come in, and refuses what is not GPT-2's kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.text.bounded_file import read_bounded

MAX_FILE_BYTES = 64 * 1024 * 1024
"""GPT-2's own is 1.3 MB, and no byte-level BPE comes near this."""

END_OF_TEXT = "<|endoftext|>"

_VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""As `transformers` names them, and as OpenAI published them."""


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The folder's byte-level BPE, without truncation or padding.

    ModelFormatError names the file that is missing, too large or malformed; UnsupportedModelError says why a
    well-formed tokenizer is not one that GPT-2 could have.
    """
    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = _read_tokenizer_json(path)
    else:
        for vocabulary, merges in _VOCABULARY_FILES:
            if (folder / vocabulary).exists():
                path = folder / vocabulary
                tokenizer = _read_vocabulary(path, folder / merges)
                break
        else:
            raise ModelFormatError(f"{folder}: no tokenizer.json, and no vocab.json with merges.txt")
    _check_byte_level_bpe(tokenizer, path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    content = read_bounded(path, MAX_FILE_BYTES)
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library's own, for whatever it can't parse
        raise ModelFormatError(f"{path}: not a tokenizer: {error}") from error


def _read_vocabulary(vocabulary_path: Path, merges_path: Path) -> tokenizers.Tokenizer:
    vocabulary = _parse_ids(vocabulary_path)
    merges = _parse_merges(merges_path)
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # the library's own, for merges that don't fit
        raise ModelFormatError(f"{merges_path}: does not fit {vocabulary_path.name}: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if END_OF_TEXT in vocabulary:
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    added_path = vocabulary_path.with_name("added_tokens.json")
    if added_path.exists():
        _add_tokens(tokenizer, added_path)
    return tokenizer


def _add_tokens(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Add what a fine-tuning added to the vocabulary: padding, say."""
    for text, token_id in sorted(_parse_ids(path).items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        if tokenizer.token_to_id(text) != token_id:
            raise ModelFormatError(f"{path}: {text!r} has id {token_id}, which does not follow the vocabulary's last")


def _parse_ids(path: Path) -> dict[str, int]:
    content = read_bounded(path, MAX_FILE_BYTES)
    try:
        ids: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(ids, dict) or not all(type(value) is int and 0 <= value < 2**32 for value in ids.values()):
        raise ModelFormatError(f"{path}: not an object of tokens and their ids")
    return ids


def _parse_merges(path: Path) -> list[tuple[str, str]]:
    content = read_bounded(path, MAX_FILE_BYTES)
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path}: not UTF-8: {error}") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r")
        if not text or (number == 1 and text.startswith("#version")):
            continue
        left, _, right = text.partition(" ")
        if not left or not right or " " in right:
            raise ModelFormatError(f"{path}: line {number} is not two tokens with a space between")
        merges.append((left, right))
    return merges


def _check_byte_level_bpe(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    model = tokenizer.model
    if not isinstance(model, models.BPE):
        raise UnsupportedModelError(f"{path}: a {type(model).__name__} tokenizer; GPT-2's is a byte-level BPE")
    steps = json.loads(tokenizer.pre_tokenizer.__getstate__()) if tokenizer.pre_tokenizer is not None else {}
    if "ByteLevel" not in [step["type"] for step in [steps, *steps.get("pretokenizers", [])] if step]:
        raise UnsupportedModelError(f"{path}: a BPE over characters; GPT-2's is over bytes (pre-tokenizer ByteLevel)")
    options = {
        "dropout": model.dropout,
        "byte_fallback": model.byte_fallback,
        "continuing_subword_prefix": model.continuing_subword_prefix,
        "end_of_word_suffix": model.end_of_word_suffix,
    }
    for name, value in options.items():
        if value:
            raise UnsupportedModelError(f"{path}: {name}={value!r}; GPT-2's byte-level BPE has none")
