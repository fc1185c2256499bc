"""Reads a model folder's tokenizer in any form that GPT-2 checkpoints come in, and refuses what is not GPT-2's kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import has_file, named, read_model_file, shown
from distilgpt2_api.text.tokenizer_description import check_ids, parse_json, restate

MAX_FILE_BYTES = 32 * 1024 * 1024
"""GPT-2's own is 1.3 MB; one of a quarter of a million tokens has 15 MB."""
SPARE_LINES = 1000
"""Of `merges.txt`, beside two for each token of the vocabulary."""

END_OF_TEXT = "<|endoftext|>"

_VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""As `transformers` names them, and as OpenAI published them."""


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The folder's byte-level BPE, without truncation or padding.

    ModelFormatError names the file that is missing, too large or malformed; UnsupportedModelError says why a
    well-formed tokenizer is not one that GPT-2 could have.
    """
    path = folder / "tokenizer.json"
    if has_file(path):
        return _read_tokenizer_json(path)
    for vocabulary, merges in _VOCABULARY_FILES:
        if has_file(folder / vocabulary):
            return _read_vocabulary(folder / vocabulary, folder / merges)
    raise ModelFormatError(f"{folder}: no tokenizer.json, and no vocab.json with merges.txt")


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    description = restate(path, read_model_file(path, MAX_FILE_BYTES))
    with _errors_of_the_library(f"{path}: not a tokenizer"):
        tokenizer = tokenizers.Tokenizer.from_buffer(orjson.dumps(description))
    for token in description["added_tokens"]:
        _check_added(tokenizer, path, token["content"], token["id"])
    return tokenizer


def _read_vocabulary(vocabulary_path: Path, merges_path: Path) -> tokenizers.Tokenizer:
    vocabulary = _parse_ids(vocabulary_path)
    merges = _parse_merges(merges_path, max_lines=2 * len(vocabulary) + SPARE_LINES)
    with _errors_of_the_library(f"{merges_path}: does not fit {vocabulary_path.name}"):
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if END_OF_TEXT in vocabulary:
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    added_path = vocabulary_path.with_name("added_tokens.json")
    if has_file(added_path):
        _add_tokens(tokenizer, added_path)
    return tokenizer


@contextmanager
def _errors_of_the_library(what: str) -> Iterator[None]:
    """Whatever it raises, as one line. A panic of its Rust is no Exception to Python."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelFormatError(f"{what}: {named(' '.join(str(error).split()))}") from None
        raise


def _add_tokens(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Add what a fine-tuning added to the vocabulary: padding, say."""
    for text, token_id in sorted(_parse_ids(path).items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        _check_added(tokenizer, path, text, token_id)


def _check_added(tokenizer: tokenizers.Tokenizer, path: Path, text: str, token_id: int) -> None:
    """The library gives an added token an id of its own where the file's can't be."""
    if tokenizer.token_to_id(text) != token_id:
        raise ModelFormatError(f"{path}: {shown(text)} has id {token_id}, which does not follow the vocabulary's last")


def _parse_ids(path: Path) -> dict[str, int]:
    return check_ids(path, parse_json(path, read_model_file(path, MAX_FILE_BYTES)))


def _parse_merges(path: Path, max_lines: int) -> list[tuple[str, str]]:
    """Each merge makes a token of the vocabulary, so there can't be many more."""
    content = read_model_file(path, MAX_FILE_BYTES)
    if content.count(b"\n") > max_lines:
        raise ModelFormatError(f"{path}: more than {max_lines} lines, far more than the vocabulary has tokens")
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
