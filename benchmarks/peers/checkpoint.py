"""Reads a model folder's weights and tokens for the exporters. Needs only numpy and safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

PREFIX = "transformer."
END_OF_TEXT = "<|endoftext|>"


def read_checkpoint(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Tensors by GPT-2's names without their prefix, as float32."""
    tensors = load_file(folder / "model.safetensors")
    return {name.removeprefix(PREFIX): tensor.astype(np.float32) for name, tensor in tensors.items()}


def read_tokens(folder: Path) -> list[str]:
    """Tokens in the order of their ids; the last is the end of text."""
    vocab: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokens = sorted(vocab, key=vocab.__getitem__)
    if tokens[-1] != END_OF_TEXT or len(tokens) != json.loads((folder / "config.json").read_text())["vocab_size"]:
        raise SystemExit(f"{folder}: needs a vocab.json of all tokens, with {END_OF_TEXT} as the last one")
    return tokens


def read_merges(folder: Path) -> list[str]:
    return (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
