"""A folder with only compiled weights serves like the checkpoint that it was compiled from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError
from distilgpt2_api.core.model_folder import COMPANION_FILES
from distilgpt2_api.model.architectures.registry import read_model_config, tensor_specs
from distilgpt2_api.model.compilation import compile_model
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.compiled_cache import load_weights
from distilgpt2_api.model.weights.compiled_file import read_compiled_model, write_compiled_file
from distilgpt2_api.model.weights.prepared import PreparedWeights, prepare_weights
from distilgpt2_api.model.weights.weight_files import compiled_name

CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "n_positions": 32,
    "vocab_size": 40,
    "bos_token_id": 39,
    "eos_token_id": 39,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    rng = np.random.default_rng(7)
    shapes = {name: spec.shape for name, spec in tensor_specs(read_model_config(folder)).items()}
    save_file(
        {f"transformer.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    return folder


@pytest.mark.parametrize("precision", Precision)
def test_compiled_weights_are_those_of_the_checkpoint(checkpoint: Path, tmp_path: Path, precision: Precision) -> None:
    compiled = tmp_path / "compiled"
    compile_model(checkpoint, compiled, precision)
    assert not (compiled / "model.safetensors").exists()
    assert (compiled / "tokenizer.json").read_text() == "{}"

    weights = {
        folder: load_weights(
            folder, read_model_config(folder), precision=precision, cache_folder=None, report=pytest.fail
        ).tensors
        for folder in (checkpoint, compiled)
    }

    assert weights[compiled].keys() == weights[checkpoint].keys()
    for name, values in weights[checkpoint].items():
        assert values.dtype == weights[compiled][name].dtype
        np.testing.assert_array_equal(weights[compiled][name], values)


def test_the_same_model_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        compile_model(checkpoint, tmp_path / name, Precision.INT8)
    one, two = (tmp_path / name / compiled_name(Precision.INT8) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.reported("a fine-tune's special tokens, there under serve and lost after pull and in the image")
def test_all_files_that_a_start_reads_are_copied(checkpoint: Path, tmp_path: Path) -> None:
    for name in set(COMPANION_FILES) - {"config.json"}:
        (checkpoint / name).write_text("{}")

    compile_model(checkpoint, tmp_path / "compiled", Precision.INT8)

    assert {path.name for path in (tmp_path / "compiled").iterdir()} == {*COMPANION_FILES, "compiled.int8.safetensors"}


def test_a_checkpoint_has_no_compiled_weights(checkpoint: Path) -> None:
    assert read_compiled_model(checkpoint, read_model_config(checkpoint), Precision.INT8) is None


def test_another_precision_needs_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    compile_model(checkpoint, tmp_path / "compiled", Precision.INT8)
    config = read_model_config(checkpoint)
    with pytest.raises(ModelNotFoundError, match="compiled for precision int8; bf16 needs the checkpoint"):
        read_compiled_model(tmp_path / "compiled", config, Precision.BF16)


def test_another_precision_is_compiled_from_the_checkpoint_if_it_is_there(checkpoint: Path, tmp_path: Path) -> None:
    compile_model(checkpoint, tmp_path / "compiled", Precision.INT8)
    (checkpoint / compiled_name(Precision.INT8)).write_bytes(
        (tmp_path / "compiled" / compiled_name(Precision.INT8)).read_bytes()
    )
    assert read_compiled_model(checkpoint, read_model_config(checkpoint), Precision.BF16) is None


def flip_a_byte(folder: Path) -> None:
    path = folder / compiled_name(Precision.INT8)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_the_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"n_layer": 3}))


def write_another_format(folder: Path) -> None:
    save_file({"wte.weight": np.zeros((40, 16), np.int8)}, folder / compiled_name(Precision.INT8))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_a_byte, "its checksum differs"),
        (change_the_config, r"tensor h\.2\..* does not match config.json"),
        (write_another_format, "written by another version"),
    ],
)
def test_a_spoilt_file_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    compiled = tmp_path / "compiled"
    compile_model(checkpoint, compiled, Precision.INT8)
    spoil(compiled)
    with pytest.raises(ModelFormatError, match=rf"compiled\.int8\.safetensors: .*{words}"):
        read_compiled_model(compiled, read_model_config(compiled), Precision.INT8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_compiled_nan_and_infinity_name_their_tensor(checkpoint: Path, tmp_path: Path, value: float) -> None:
    """The checksum proves nothing: an attacker who wrote the values wrote it too."""
    config = read_model_config(checkpoint)
    tensors = prepare_weights(config, open_checkpoint(checkpoint, config), Precision.INT8).tensors
    tensors["h.1.attn.c_attn.scale"][3] = value
    with (checkpoint / compiled_name(Precision.INT8)).open("wb") as file:
        write_compiled_file(file, PreparedWeights(tensors), {})

    with pytest.raises(ModelFormatError, match=r"tensor h\.1\.attn\.c_attn\.scale has values that are NaN"):
        read_compiled_model(checkpoint, config, Precision.INT8)


def test_nothing_from_outside_the_folder_is_copied(checkpoint: Path, tmp_path: Path) -> None:
    """A link would copy its target into an image."""
    (tmp_path / "secret").write_text("secret")
    (checkpoint / "README.md").symlink_to(tmp_path / "secret")

    with pytest.raises(ModelFormatError, match=r"README\.md: a link that leads out of the model folder"):
        compile_model(checkpoint, tmp_path / "compiled", Precision.INT8)
