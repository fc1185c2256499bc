"""The documented conversion of checkpoints is lossless, and merging an adapter gives what PEFT gives."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.docs.blocks import ROOT, command_blocks
from transformers import GPT2LMHeadModel

from distilgpt2_api.model.conversion import convert_model
from distilgpt2_api.model.weights.pickled_file import PickledFile

MODEL = ROOT / "src" / "distilgpt2_api" / "models" / "storyteller"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in float32, as transformers saves it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    GPT2LMHeadModel.from_pretrained(MODEL, dtype=torch.float32).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    return state


@pytest.mark.parametrize(
    "options",
    [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}],
    ids=["zip", "legacy", "protocol 4"],
)
@pytest.mark.parametrize("is_training", [False, True])
def test_a_pickle_becomes_a_folder_that_transformers_reads(
    options: dict[str, Any], is_training: bool, base: Path, tmp_path: Path
) -> None:
    """A state dict alone, or beside the optimizer's state."""
    model = GPT2LMHeadModel.from_pretrained(base)
    content: dict[str, Any] = model.state_dict()
    if is_training:
        model(torch.arange(9)[None], labels=torch.arange(9)[None]).loss.backward()
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.step()
        content = {"epoch": 3, "optimizer": optimizer.state_dict(), "model": model.state_dict()}
    checkpoint = tmp_path / "my-checkpoint"
    checkpoint.mkdir()
    torch.save(content, checkpoint / "pytorch_model.bin", **options)
    shutil.copy(base / "config.json", checkpoint)

    convert_model(checkpoint, tmp_path / "my-model")

    converted = state_of(tmp_path / "my-model")
    assert all(torch.equal(converted[name], values) for name, values in model.state_dict().items())


def test_every_kind_of_tensor_is_read(tmp_path: Path) -> None:
    matrix = torch.randn(3, 4)
    tensors = {
        "transposed": matrix.t(),
        "part": matrix[1:, ::2],
        "same": matrix,
        "half": matrix.half(),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(matrix),
    }
    torch.save(tensors | {"mask": torch.ones(2, dtype=torch.bool)}, tmp_path / "file.pt")
    file = PickledFile(tmp_path / "file.pt")
    assert file.spans.keys() == tensors.keys() | {"mask"}
    for name, values in tensors.items():
        np.testing.assert_array_equal(file.read(name), values.detach().numpy())


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
        {"target_modules": ["c_attn"]},
        {"target_modules": ["c_attn", "c_proj"], "use_rslora": True, "bias": "all"},
        {"target_modules": ["c_attn", "c_proj"], "bias": "lora_only", "modules_to_save": ["ln_f"]},
        {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
        {
            "target_modules": ["c_attn", "c_proj"],
            "rank_pattern": {"attn.c_proj": 2, "^transformer.h.0.attn.c_attn": 3},
            "alpha_pattern": {"h.1.attn.c_attn": 5, "c_proj": 9},
        },
        {"target_modules": ["wpe", "c_fc"]},
    ],
    ids=", ".join,
)
def test_a_merged_adapter_equals_pefts(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of what it sets itself, such as fan_in_fan_out
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=7, **options)
        model = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / "my-adapter")

        convert_model(base, tmp_path / "my-model", adapter=tmp_path / "my-adapter")

        expected = model.merge_and_unload().state_dict()
    merged = state_of(tmp_path / "my-model")
    before = state_of(base)
    assert any(not torch.equal(merged[name], values) for name, values in before.items())
    for name, values in expected.items():
        torch.testing.assert_close(merged[name], values, rtol=1e-5, atol=1e-6)


def test_the_page_shows_these_commands() -> None:
    page = "".join(block.text for block in command_blocks(ROOT / "docs" / "your-own-model.md"))
    assert "distilgpt2-api convert my-checkpoint my-fine-tuned-gpt2\n" in page
    assert "distilgpt2-api convert distilgpt2 my-merged-gpt2 --adapter my-adapter\n" in page
