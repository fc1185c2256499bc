"""The documented conversion of a PyTorch checkpoint is lossless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.docs.blocks import ROOT, command_blocks
from transformers import GPT2LMHeadModel

MODEL = ROOT / "src" / "distilgpt2_api" / "models" / "storyteller"


def test_a_pickle_becomes_a_folder_that_we_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [
        block.text for block in command_blocks(ROOT / "docs" / "your-own-model.md") if block.language == "python"
    ]
    weights = GPT2LMHeadModel.from_pretrained(MODEL).state_dict()
    checkpoint = tmp_path / "my-checkpoint"
    checkpoint.mkdir()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(MODEL / name, checkpoint)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    exec(compile(program, "your-own-model.md", "exec"), {})

    made = {path.name for path in (tmp_path / "my-model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= made
    converted = GPT2LMHeadModel.from_pretrained(tmp_path / "my-model").state_dict()
    assert all(torch.equal(converted[name], values) for name, values in weights.items())
