"""Special tokens and tokens around a text: as `transformers` reads the same folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

TEXTS = ("<s>ab</s>", "<|user|> hi", "Hi", "<|endoftext|>a", "a\n\nb")
FLAGS = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
NEXT_ID = 259
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"s": {"id": "s", "ids": [0], "tokens": ["<|endoftext|>"]}},
}


def write_folder(folder: Path, files: Mapping[str, object], *, post_processor: object, is_json: bool) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: index for index, text in enumerate(["<|endoftext|>", *alphabet, "<s>", "</s>"])}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    if is_json:
        library = LibraryTokenizer(models.BPE(vocab=vocabulary, merges=[]))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.add_special_tokens(["<|endoftext|>"])
        description = json.loads(library.to_str()) | {"post_processor": post_processor}
        (folder / "tokenizer.json").write_text(json.dumps(description))
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<|endoftext|>"}},
        {
            "tokenizer_config.json": {
                "bos_token": "<s>",
                "eos_token": {"__type": "AddedToken", "content": "</s>", **FLAGS},
            }
        },
        {"added_tokens.json": {"<|user|>": NEXT_ID}},
        {"tokenizer_config.json": {"added_tokens_decoder": {str(NEXT_ID): {"content": "<|user|>", **FLAGS}}}},
        {"tokenizer_config.json": {"add_bos_token": True}},
        {"tokenizer_config.json": {"add_bos_token": True, "add_eos_token": True, "eos_token": "</s>"}},
        {"tokenizer_config.json": {"add_prefix_space": True}},
        {"tokenizer_config.json": {"split_special_tokens": True}},
        {"tokenizer_config.json": {"extra_special_tokens": ["<s>"]}},
    ],
)
@pytest.mark.parametrize("post_processor", [None, TEMPLATE])
def test_a_folders_tokens_are_those_of_transformers(
    tmp_path: Path, files: Mapping[str, object], post_processor: object, is_json: bool
) -> None:
    write_folder(tmp_path, files, post_processor=post_processor, is_json=is_json)
    ours = Tokenizer.from_folder(tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        token_ids = ours.encode(text)
        assert token_ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.with_special_tokens(token_ids) == theirs(text)["input_ids"]
    special = {token_id for token_id, token in theirs.added_tokens_decoder.items() if token.special}
    assert ours.special_token_ids == special
