"""No description reaches the tokenizers library that would make it panic or take exponential time or memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.errors import ModelError, ModelFormatError, UnsupportedModelError
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def nested(key: str, depth: int) -> str:
    return f'{{"type":"Sequence","{key}":[' * depth + "]}" * depth


def split(pattern: object) -> dict[str, Any]:
    step = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


def added(content: object, token_id: object) -> list[dict[str, Any]]:
    return [{"id": token_id, "content": content, "special": True}]


def load(folder: Path, json_folder: Path, **parts: Any) -> Tokenizer:
    """A valid tokenizer with these parts of the file replaced; `model` lists changes in it. Bytes are JSON."""
    description = json.loads((json_folder / "tokenizer.json").read_text())
    parts["model"] = description["model"] | parts.get("model", {})
    raw = {name: part for name, part in parts.items() if isinstance(part, bytes)}
    text = json.dumps(description | parts | {name: f"RAW {name}" for name in raw})
    for name, part in raw.items():
        text = text.replace(f'"RAW {name}"', part.decode())
    (folder / "tokenizer.json").write_text(text)
    return Tokenizer.from_folder(folder)


HOSTILE: dict[str, tuple[dict[str, Any], type[ModelError], str]] = {
    "a sequence in sequences": (
        {"pre_tokenizer": nested("pretokenizers", 100).encode()},
        UnsupportedModelError,
        "more than 16 steps",
    ),
    "sequences without end": (
        {"normalizer": nested("normalizers", 100_000).encode()},
        ModelFormatError,
        "not valid JSON",
    ),
    "many steps": (
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 1000}},
        UnsupportedModelError,
        "more than 16 steps",
    ),
    "depth in a step": (
        {"pre_tokenizer": json.dumps(BYTE_LEVEL)[:-1].encode() + b',"x":' + b"[" * 900 + b"]" * 900 + b"}"},
        ModelFormatError,
        "not a tokenizer",
    ),
    "an exponential expression": (
        {"pre_tokenizer": split({"Regex": "(a+)+$"})},
        UnsupportedModelError,
        "its cost is unknown",
    ),
    "an invalid expression": ({"pre_tokenizer": split({"Regex": "(("})}, UnsupportedModelError, "regular expression"),
    "a text that grows": (
        {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 10**6}},
        UnsupportedModelError,
        "normalizer Replace",
    ),
    "a map that panics": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}},
        UnsupportedModelError,
        "normalizer Precompiled",
    ),
    "a length of nought": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}, BYTE_LEVEL]}},
        UnsupportedModelError,
        "pre_tokenizer FixedLength",
    ),
    "a step that is none": (
        {"pre_tokenizer": {"type": ["ByteLevel"]}},
        ModelFormatError,
        "must be an object with a type",
    ),
    "a prefix longer than a token": (
        {"model": {"continuing_subword_prefix": "ééé"}},
        UnsupportedModelError,
        "continuing_subword_prefix='ééé'",
    ),
    "a merge of what is not there": ({"model": {"merges": [["a", "zz"]]}}, ModelFormatError, "`zz` out of vocabulary"),
    "a merge into what is not there": (
        {"model": {"merges": [["a", "king"], ["z", "Q"]]}},
        ModelFormatError,
        "out of vocabulary",
    ),
    "merges that are none": ({"model": {"merges": [["a"]]}}, ModelFormatError, "merges must be a list of pairs"),
    "a merge without its space": ({"model": {"merges": ["ab"]}}, ModelFormatError, "merges must be a list of pairs"),
    "merges of numbers": ({"model": {"merges": [[1, 2]]}}, ModelFormatError, "merges must be a list of pairs"),
    "an id of 2^64": ({"model": {"vocab": {"a": 2**64 - 1}}}, ModelFormatError, "not an object of tokens"),
    "an id far beyond": (
        {"model": {"vocab": {"a": 2**31}, "merges": []}, "added_tokens": []},
        ModelFormatError,
        "far larger",
    ),
    "a token of a megabyte": ({"model": {"vocab": {"a" * 10**6: 0}}}, ModelFormatError, "more than 4096 characters"),
    "an added token far beyond": ({"added_tokens": added("<x>", 4_000_000_000)}, ModelFormatError, "'<x>' has id 4"),
    "an added token without text": ({"added_tokens": added("", 5)}, ModelFormatError, "must be an object with an id"),
    "an added token of no text": ({"added_tokens": added(7, 5)}, ModelFormatError, "must be an object with an id"),
    "added tokens that are none": ({"added_tokens": {"a": 1}}, ModelFormatError, "added_tokens must be a list"),
}


@pytest.mark.parametrize(("parts", "error", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_is_refused_by_name(
    json_folder: Path, tmp_path: Path, parts: dict[str, Any], error: type[ModelError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        load(tmp_path, json_folder, **parts)

    assert str(tmp_path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 600


def test_parts_that_do_not_change_token_ids_are_left_out(json_folder: Path, tmp_path: Path) -> None:
    """They may have any content."""
    tokenizer = load(tmp_path, json_folder, decoder=[1], truncation=7, padding="x")

    assert tokenizer.encode("The king") == Tokenizer.from_folder(json_folder).encode("The king")


@pytest.mark.parametrize(
    "pattern",
    [
        {"String": "k"},
        {"String": ""},
        {"Regex": r"\p{N}{1,3}"},
        {
            "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        },
    ],
)
def test_known_splits_work(json_folder: Path, tmp_path: Path, pattern: dict[str, str]) -> None:
    tokenizer = load(tmp_path, json_folder, pre_tokenizer=split(pattern))

    assert tokenizer.decode(tokenizer.encode("The king's 1234 ships\n")) == "The king's 1234 ships\n"


def test_merges_far_beyond_the_vocabulary_are_not_parsed(vocabulary_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes((vocabulary_folder / "vocab.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes(b"\n" * 1_000_000)

    with pytest.raises(ModelFormatError, match=r"merges\.txt: it has more than \d+ lines"):
        Tokenizer.from_folder(tmp_path)
