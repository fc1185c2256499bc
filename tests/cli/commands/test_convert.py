"""`distilgpt2-api convert`: from a checkpoint or an adapter to a folder that generates text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.torch_file import save
from safetensors.numpy import load_file, save_file


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    """The same model as a checkpoint of PyTorch."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    (folder / "pytorch_model.bin").write_bytes(save(load_file(weights)))
    weights.unlink()
    return folder


def generated(invoke: Any, model: Path) -> str:
    result = invoke("generate", "The king", "--model", str(model), "--max-new-tokens", "8", "--seed", "1")
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_a_converted_checkpoint_generates_the_same_text(
    checkpoint: Path, tiny_model: Path, tmp_path: Path, invoke: Any
) -> None:
    """From the folder, and from a file in it. The checkpoint itself is refused with this command."""
    refusal = invoke("generate", "The king", "--model", str(checkpoint))
    assert f"convert the model: distilgpt2-api convert {checkpoint} NEW_FOLDER" in refusal.stderr

    for number, source in enumerate((checkpoint, checkpoint / "pytorch_model.bin")):
        target = tmp_path / f"new-{number}"
        result = invoke("convert", str(source), str(target))
        assert (result.exit_code, result.stdout) == (0, f"serve it: distilgpt2-api serve --model {target}\n")
        assert generated(invoke, target) == generated(invoke, tiny_model)


@pytest.mark.reported("a reader: a checkpoint without a tokenizer was converted, and then could not be served")
@pytest.mark.parametrize("content", [None, "{"])
def test_a_model_that_needs_a_tokenizer_is_not_called_ready_to_serve(
    content: str | None, checkpoint: Path, tmp_path: Path, invoke: Any
) -> None:
    tokenizer = checkpoint / "tokenizer.json"
    tokenizer.unlink()
    if content is not None:
        tokenizer.write_text(content)
    result = invoke("convert", str(checkpoint), str(tmp_path / "new"))
    assert (result.exit_code, result.stdout) == (0, "")
    refusal = invoke("generate", "The king", "--model", str(tmp_path / "new"))
    assert f"it can't be served yet: {refusal.stderr.removeprefix('error: ')}" in result.stderr
    assert "tokenizer.json" in result.stderr


def test_an_adapter_is_merged_into_a_base_model(tiny_model: Path, tmp_path: Path, invoke: Any) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    module = "base_model.model.transformer.h.0.attn.c_attn"
    parts = {"lora_A": np.ones((1, 16), np.float32), "lora_B": np.ones((48, 1), np.float32)}
    save_file({f"{module}.{name}.weight": part for name, part in parts.items()}, adapter / "adapter_model.safetensors")
    refusal = invoke("generate", "The king", "--model", str(adapter))
    assert "it is a PEFT adapter; merge it: distilgpt2-api convert BASE_MODEL NEW_FOLDER --adapter" in refusal.stderr

    result = invoke("convert", str(tiny_model), str(tmp_path / "new"), "--adapter", str(adapter))

    assert result.exit_code == 0, result.output
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, tmp_path / "new"))
    name = "h.0.attn.c_attn.weight"
    np.testing.assert_allclose(after.pop(name), before.pop(name) + 1, rtol=1e-6)
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "NEW"], "/nowhere; to fetch it from the hub: distilgpt2-api pull nowhere"),
        (["CHECKPOINT", "CHECKPOINT"], "exists: name a new folder"),
        (["CHECKPOINT/config.json", "NEW"], "config.json: not a checkpoint of PyTorch"),
    ],
)
def test_an_error_is_one_line(
    arguments: list[str], message: str, checkpoint: Path, invoke: Any, tmp_path: Path
) -> None:
    names = {"CHECKPOINT": str(checkpoint), "NEW": str(tmp_path / "new")}
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    result = invoke("convert", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
