"""Reads a model folder's tokenizer in each form of GPT-2 checkpoints. Refuses tokenizers of another kind."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import orjson
import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import decode_text, has_file, read_model_file, safe_name, safe_repr
from distilgpt2_api.core.model_folder import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VOCABULARY_FILES
from distilgpt2_api.text.tokenization.special_tokens import SpecialTokens, read_special_tokens, read_tokenizer_config
from distilgpt2_api.text.tokenization.tokenizer_description import (
    ADDED_TOKEN_FLAGS,
    BPE_FLAGS,
    check_ids,
    parse_description,
    parse_json,
    sanitize,
)
from distilgpt2_api.text.tokenization.tokenizer_frame import NO_FRAME, Frame, read_flags, read_post_processor

MAX_FILE_BYTES = 32 * 1024 * 1024
"""GPT-2's own has 1.3 MB; one with a quarter of a million tokens has 15 MB."""
SPARE_LINES = 1000
"""Lines that `merges.txt` may have beside two for each token of the vocabulary."""

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """A model folder's tokenizer and its settings."""

    library: tokenizers.Tokenizer
    """The byte-level BPE with its added tokens, without truncation or padding."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """The texts of `bos_token`, `eos_token` and so on, as far as a file names them."""
    frame: Frame = NO_FRAME
    """Tokens before and after each text."""
    has_prefix_space: bool = False
    """A text is tokenized as if a space stood before it."""
    left_out: tuple[str, ...] = ()
    """Added tokens that the model has no row for."""
    digest: str = ""
    """Digest of all settings that change how a text is tokenized."""


def read_tokenizer(folder: Path, num_rows: int | None) -> tuple[TokenizerFiles, dict[str, int]]:
    """Read the folder's byte-level BPE, and its vocabulary with the added tokens.

    Added tokens beyond the model's `num_rows` are left out, for example a padding token that was added without resizing
    the embeddings. Their texts become plain text.

    ModelFormatError names the file that is missing, too large or malformed; UnsupportedModelError says why a
    well-formed tokenizer is not supported.
    """
    config = read_tokenizer_config(folder)
    special = read_special_tokens(folder, config)
    path, description, post_processor = _read_description(folder)
    _add_special_tokens(description, special)
    left_out = [] if num_rows is None else _leave_out(description, num_rows)
    has_prefix_space = _set_prefix_space(description, config.get("add_prefix_space"))
    with _library_errors_in_one_line(f"{path}: not a tokenizer"):
        library = _build(description)
    library.encode_special_tokens = config.get("split_special_tokens") is True
    for token in description["added_tokens"]:
        source = special.added_path if token["id"] in special.added else path
        _check_added(library, source, token["content"], token["id"])
    if path.name == TOKENIZER_FILE:
        frame = read_post_processor(path, post_processor)
    else:
        config_path = folder / TOKENIZER_CONFIG_FILE
        frame = read_flags(config_path, config, special.roles, library.token_to_id, END_OF_TEXT)
    if any(library.id_to_token(token_id) is None for token_id in frame.before + frame.after):
        raise ModelFormatError(f"{path}: post_processor: it adds a token that the vocabulary does not have")
    added_ids = {token["content"]: token["id"] for token in description["added_tokens"]}
    files = TokenizerFiles(
        library=library,
        roles=special.roles,
        frame=frame,
        has_prefix_space=has_prefix_space,
        left_out=tuple(left_out),
        digest=hashlib.sha256(
            orjson.dumps(description) + repr((frame, library.encode_special_tokens)).encode()
        ).hexdigest(),
    )
    return files, description["model"]["vocab"] | added_ids


def _read_description(folder: Path) -> tuple[Path, dict[str, Any], Any]:
    """The vocabulary's file, its description in the form of `tokenizer.json`, and its post-processor."""
    path = folder / TOKENIZER_FILE
    if has_file(path):
        described = parse_description(path, read_model_file(path, MAX_FILE_BYTES))
        return path, sanitize(path, described), described.get("post_processor")
    for vocabulary, merges in VOCABULARY_FILES:
        if has_file(folder / vocabulary):
            return folder / merges, _describe_vocabulary(folder / vocabulary, folder / merges), None
    forms = ", ".join(f"{vocabulary} with {merges}" for vocabulary, merges in VOCABULARY_FILES)
    raise ModelFormatError(
        f"{folder}: no {TOKENIZER_FILE}, and no {forms}; copy them from the model that this one was fine-tuned from"
    )


def _describe_vocabulary(vocabulary_path: Path, merges_path: Path) -> dict[str, Any]:
    vocabulary = check_ids(
        vocabulary_path, parse_json(vocabulary_path, read_model_file(vocabulary_path, MAX_FILE_BYTES))
    )
    merges = _parse_merges(merges_path, max_lines=2 * len(vocabulary) + SPARE_LINES)
    special = {"id": vocabulary.get(END_OF_TEXT), "content": END_OF_TEXT, "special": True}
    return sanitize(
        merges_path,
        {
            "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
            "added_tokens": [] if special["id"] is None else [special],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        },
    )


def _add_special_tokens(description: dict[str, Any], special: SpecialTokens) -> None:
    """Add the tokens of other files, with their flags. Tokens that a file calls special are so if the vocabulary has
    them.

    A token without an id in any file is left out, because the model has no row for it.
    """
    vocabulary = description["model"]["vocab"]
    added = {token["id"]: token for token in description["added_tokens"]} | dict(special.added)
    ids = {token["content"]: token_id for token_id, token in added.items()}
    for text in special.texts:
        token_id = ids.get(text, vocabulary.get(text))
        if token_id is not None:
            plain = {"id": token_id, "content": text, **dict.fromkeys(ADDED_TOKEN_FLAGS, False)}
            added[token_id] = {**added.get(token_id, plain), "special": True}
    # The library numbers them in this order.
    description["added_tokens"] = sorted(added.values(), key=lambda token: token["id"])


def _leave_out(description: dict[str, Any], num_rows: int) -> list[str]:
    """Remove the added tokens that the model has no row for. Returns their texts."""
    added = description["added_tokens"]
    description["added_tokens"] = [token for token in added if token["id"] < num_rows]
    return [token["content"] for token in added if token["id"] >= num_rows]


def _set_prefix_space(description: dict[str, Any], wanted: Any) -> bool:
    """Apply `add_prefix_space` of `tokenizer_config.json` to GPT-2's own pre-tokenizer, as `transformers` does.

    Other pre-tokenizers split a text before ByteLevel, which would then put a space before every piece.
    """
    match description["pre_tokenizer"]["pretokenizers"]:
        case [{"type": "ByteLevel"} as step]:
            if isinstance(wanted, bool):
                step["add_prefix_space"] = wanted
            return step.get("add_prefix_space") is True
        case steps:
            return any(step["type"] == "ByteLevel" and step.get("add_prefix_space") is True for step in steps)


def _build(description: dict[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer. Its own reader takes three times as long for the vocabulary, and more memory."""
    model = description["model"]
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    merges = cast(list[tuple[str, str]], pairs)
    empty = description | {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    library = tokenizers.Tokenizer.from_buffer(orjson.dumps(empty))
    library.model = BPE(vocab=model["vocab"], merges=merges, **{flag: model[flag] for flag in BPE_FLAGS})
    for is_special, group in groupby(description["added_tokens"], key=itemgetter("special")):  # numbered in this order
        tokens = [
            AddedToken(token["content"], **{flag: token[flag] for flag in ADDED_TOKEN_FLAGS if flag != "special"})
            for token in group
        ]
        (library.add_special_tokens if is_special else library.add_tokens)(tokens)
    return library


@contextmanager
def _library_errors_in_one_line(what: str) -> Iterator[None]:
    """Turns the library's errors into one line. A Rust panic is not an Exception in Python."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelFormatError(f"{what}: {safe_name(' '.join(str(error).split()))}") from None
        raise


def _check_added(library: tokenizers.Tokenizer, path: Path, text: str, token_id: int) -> None:
    """The library gives an added token another id if it can't have the file's."""
    if library.token_to_id(text) != token_id:
        raise ModelFormatError(
            f"{path}: {safe_repr(text)} has id {token_id}, which does not follow the vocabulary's last id"
        )


def _parse_merges(path: Path, max_lines: int) -> list[tuple[str, str]]:
    """Each merge creates a token of the vocabulary, so `max_lines` bounds their number."""
    content = read_model_file(path, MAX_FILE_BYTES)
    if content.count(b"\n") > max_lines:
        raise ModelFormatError(f"{path}: it has more than {max_lines} lines, far more than the vocabulary has tokens")
    lines = decode_text(path, content).split("\n")
    if b"\r" in content:
        lines = [line.rstrip("\r") for line in lines]
    if lines[0].startswith("#version"):
        lines[0] = ""
    merges = [tuple(line.split(" ")) for line in lines if line]
    if not set(map(len, merges)) <= {2} or "" in chain.from_iterable(merges):
        wrong = next(line for line in lines if line and (line.count(" ") != 1 or line != line.strip(" ")))
        number = lines.index(wrong) + 1
        raise ModelFormatError(f"{path}: line {number} must be two tokens with a space between")
    return cast(list[tuple[str, str]], merges)
