"""Checks a `tokenizer.json`: it must be a byte-level BPE, without options that crash the library or exhaust it.

The library accepts any composition of its parts. Some parts make it panic, at once or at a request's text
(`FixedLength` of 0, a `Precompiled` map, a prefix longer than a token). A regular expression can take exponential time,
a `Replace` any amount of memory. So the file is parsed here, and the library gets a description of only the checked
parts.
"""

from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import BYTE_ORDER_MARK, count_json_values, safe_name, safe_repr

MAX_TOKENS = 2_000_000
MAX_ADDED_TOKENS = 100_000
MAX_TOKEN_CHARACTERS = 4096
"""GPT-2's longest token has 128."""
MAX_STEPS = 16
MAX_JSON_VALUES = 4_000_000
"""Three for each merge that is written as a pair, and one for each token."""

NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip"})
PRE_TOKENIZERS = frozenset(
    {"ByteLevel", "Digits", "Punctuation", "UnicodeScripts", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"}
)
"""Allowed beside `Split` at a fixed text or at one of `KNOWN_PATTERNS`."""
_LETTERS = r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN_PATTERNS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?" + _LETTERS,
        (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?" + _LETTERS).replace("{1,3}", ""),
        r"\p{N}{1,3}",
        r"\p{N}",
    }
)
"""Regular expressions of published byte-level BPEs (GPT-2's, GPT-4's and Llama 3's, Qwen's). All take linear time. Any
other one is refused, because its cost is unknown.
"""

ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
BPE_FLAGS = ("fuse_unk", "ignore_merges")
FOREIGN_OPTIONS = ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")


def parse_description(path: Path, content: bytes) -> dict[str, Any]:
    """Parses a `tokenizer.json`: an object with a `model`. Raises ModelFormatError."""
    description = parse_json(path, content, "not a tokenizer: ")
    if not isinstance(description, dict) or not isinstance(description.get("model"), dict):
        raise ModelFormatError(f"{path}: not a tokenizer: it must be an object with a `model`")
    return description


def sanitize(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's description with only its checked parts, for the library. `path` is for error messages.

    Raises ModelFormatError if the description is malformed, UnsupportedModelError if it is not a byte-level BPE.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "model": _model(path, description["model"]),
        "added_tokens": check_added_tokens(path, description.get("added_tokens")),
        "normalizer": _normalizer(path, description.get("normalizer")),
        "pre_tokenizer": _pre_tokenizer(path, description.get("pre_tokenizer")),
        "post_processor": None,
        "decoder": None,
    }


def parse_json(path: Path, content: bytes, what: str = "") -> Any:
    """Parses JSON with orjson, since vocabularies are large. `what` begins the error text. Raises ModelFormatError."""
    count_json_values(path, content, MAX_JSON_VALUES)
    try:
        return orjson.loads(content.removeprefix(BYTE_ORDER_MARK))
    except ValueError as error:
        raise ModelFormatError(f"{path}: {what}not valid JSON: {str(error)[:200]}") from None


def check_ids(path: Path, ids: Any) -> dict[str, int]:
    """Checks a mapping of tokens to ids: its size and the tokens' lengths are bounded. Raises ModelFormatError."""
    if not isinstance(ids, dict) or not _are_ids(ids.values()):
        raise ModelFormatError(f"{path}: not an object of tokens and their ids")
    if len(ids) > MAX_TOKENS:
        raise ModelFormatError(f"{path}: {len(ids)} tokens; at most {MAX_TOKENS} are supported")
    if ids and max(map(len, ids)) > MAX_TOKEN_CHARACTERS:
        raise ModelFormatError(f"{path}: a token has more than {MAX_TOKEN_CHARACTERS} characters")
    return ids


def _are_ids(values: Collection[Any]) -> bool:
    return not values or (set(map(type, values)) == {int} and min(values) >= 0 and max(values) < 2**32)


def _model(path: Path, model: dict[str, Any]) -> dict[str, Any]:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise UnsupportedModelError(
            f"{path}: a {safe_name(str(kind))} tokenizer is not supported; GPT-2's is a byte-level BPE"
        )
    for name in FOREIGN_OPTIONS:
        if model.get(name):
            raise UnsupportedModelError(
                f"{path}: {name}={safe_repr(model[name])} is not supported; GPT-2's byte-level BPE has none"
            )
    merges = model.get("merges")
    if not isinstance(merges, list) or not are_merges(merges):
        raise ModelFormatError(f"{path}: not a tokenizer: merges must be a list of pairs of tokens")
    flags = {name: model.get(name) is True for name in BPE_FLAGS}
    return {"type": "BPE", "vocab": check_ids(path, model.get("vocab")), "merges": merges, **flags}


def are_merges(merges: Sequence[Any]) -> bool:
    """Whether each is `"a b"` or a pair `["a", "b"]`. The library checks that the tokens exist.

    Checked by kind and not one by one: there may be hundreds of thousands, and each start checks them.
    """
    kinds = set(map(type, merges))
    texts = [merge for merge in merges if isinstance(merge, str)] if str in kinds else []
    pairs = [merge for merge in merges if not isinstance(merge, str)] if texts else merges
    return (
        kinds <= {str, list, tuple}
        and all(text.count(" ") == 1 for text in texts)
        and set(map(len, pairs)) <= {2}
        and set(map(type, chain.from_iterable(pairs))) <= {str}
    )


def check_added_tokens(path: Path, tokens: Any) -> list[dict[str, Any]]:
    """Added tokens with only their ids, contents and flags. Raises ModelFormatError."""
    if tokens is None:
        return []
    if not isinstance(tokens, list) or len(tokens) > MAX_ADDED_TOKENS:
        raise ModelFormatError(f"{path}: added_tokens must be a list of at most {MAX_ADDED_TOKENS}")
    added = []
    for token in tokens:
        match token:
            case {"id": int() as token_id, "content": str() as text} if text:
                check_ids(path, {text: token_id})
                added.append(
                    {"id": token_id, "content": text, **{flag: token.get(flag) is True for flag in ADDED_TOKEN_FLAGS}}
                )
            case _:
                raise ModelFormatError(
                    f"{path}: added tokens: {safe_repr(token)} must be an object with an id and a content"
                )
    return added


def _normalizer(path: Path, normalizer: Any) -> Any:
    steps = read_steps(path, normalizer, "normalizer", "normalizers")
    for step in steps:
        if step["type"] not in NORMALIZERS:
            raise UnsupportedModelError(f"{path}: normalizer {safe_name(step['type'])} is not supported")
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _pre_tokenizer(path: Path, pre_tokenizer: Any) -> Any:
    steps = read_steps(path, pre_tokenizer, "pre_tokenizer", "pretokenizers")
    if "ByteLevel" not in [step["type"] for step in steps]:
        raise UnsupportedModelError(
            f"{path}: a BPE over characters is not supported; GPT-2's is over bytes (pre-tokenizer ByteLevel)"
        )
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"String": str()}}:
                pass
            case {"type": "Split", "pattern": {"Regex": str() as pattern}} if pattern in KNOWN_PATTERNS:
                pass
            case {"type": "Split", "pattern": pattern}:
                raise UnsupportedModelError(
                    f"{path}: pre_tokenizer: the regular expression {safe_repr(pattern)} is not supported, "
                    "because its cost is unknown"
                )
            case {"type": str() as kind} if kind not in PRE_TOKENIZERS:
                raise UnsupportedModelError(f"{path}: pre_tokenizer {safe_name(kind)} is not supported")
    return {"type": "Sequence", "pretokenizers": steps}


def read_steps(path: Path, step: Any, what: str, key: str) -> list[dict[str, Any]]:
    """The steps of a possibly nested sequence, as a flat list. The number of steps and of sequences is bounded.

    Raises ModelFormatError or UnsupportedModelError.
    """
    flat: list[dict[str, Any]] = []
    waiting = [] if step is None else [step]
    num_seen = 0
    while waiting:
        num_seen += 1
        if num_seen + len(waiting) > 2 * MAX_STEPS:
            raise UnsupportedModelError(f"{path}: {what}: more than {MAX_STEPS} steps")
        match waiting.pop(0):
            case {"type": "Sequence"} as sequence if isinstance(sequence.get(key), list):
                waiting = [*sequence[key], *waiting]
            case {"type": str()} as single:
                flat.append(single)
            case other:
                raise ModelFormatError(f"{path}: {what}: {safe_repr(other)} must be an object with a type")
    return flat
