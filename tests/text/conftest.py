"""A tiny byte-level BPE, trained here, in each form of GPT-2 checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

CORPUS = [
    "The old king walked down to the harbour, and the king's daughter walked with him.",
    "It isn't 1812 any more: they've got 24 ships, we'll see.\n\nAnd then?\n",
    "Œuvres, naïve café, Straße — “quoted”, 東京の天気は晴れ。 Привет, мир! 🎉🎉",
]


def train() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def json_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with tokenizer.json. Read-only, like the other two: all tests share them."""
    folder = tmp_path_factory.mktemp("tokenizer-json")
    train().save(str(folder / "tokenizer.json"))
    return folder


def write_vocabulary(json_folder: Path, folder: Path, vocabulary_name: str, merges_name: str) -> Path:
    model = json.loads((json_folder / "tokenizer.json").read_text())["model"]
    (folder / vocabulary_name).write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / merges_name).write_text("#version: 0.2\n" + merges)
    return folder


@pytest.fixture(scope="session")
def vocabulary_folder(json_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with vocab.json and merges.txt."""
    return write_vocabulary(json_folder, tmp_path_factory.mktemp("vocabulary"), "vocab.json", "merges.txt")


@pytest.fixture(scope="session")
def openai_folder(json_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with encoder.json and vocab.bpe."""
    return write_vocabulary(json_folder, tmp_path_factory.mktemp("openai"), "encoder.json", "vocab.bpe")


@pytest.fixture(scope="session")
def tokenizer(json_folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(json_folder)
