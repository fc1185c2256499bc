"""Conversion: a checkpoint of PyTorch, or a base model and an adapter, becomes a folder that can be served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.torch_file import save
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from distilgpt2_api.core.errors import ModelError, ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.model.conversion import convert_model

Tensors = dict[str, NDArray[Any]]


def pickle_weights(model: Any, tensors: Tensors | None = None, name: str = "pytorch_model.bin", **options: Any) -> None:
    """Replaces the model's safetensors file by a pickle."""
    (model.path / "model.safetensors").unlink(missing_ok=True)
    (model.path / name).write_bytes(save(model.tensors if tensors is None else tensors, **options))


def check_converted(folder: Path, tensors: Tensors) -> None:
    converted = load_file(folder / "model.safetensors")
    assert converted.keys() == tensors.keys()
    for name, values in tensors.items():
        assert converted[name].dtype == values.dtype
        np.testing.assert_array_equal(converted[name], values)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "ckpt.pt", "weights.pth"])
@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_pickle_becomes_safetensors_of_the_same_type(
    name: str, is_legacy: bool, dtype: Any, make_model: Any, tmp_path: Path
) -> None:
    """Buffers of old checkpoints are left out, and files beside the weights are copied."""
    model = make_model()
    (model.path / "tokenizer.json").write_text("{}")
    tensors = {key: tensor.astype(dtype) for key, tensor in model.tensors.items()}
    masks = {"transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 8, 8), np.uint8))}
    pickle_weights(
        model, {f"transformer.{key}": tensor for key, tensor in tensors.items()} | masks, name, is_legacy=is_legacy
    )
    (model.path / "training_args.bin").write_bytes(b"not read")

    num_tensors = convert_model(model.path, tmp_path / "new")

    assert num_tensors == len(tensors)
    check_converted(tmp_path / "new", tensors)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_bf16_keeps_its_bits(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    bits = {name: (tensor.view(np.uint32) >> 16).astype(np.uint16) for name, tensor in model.tensors.items()}
    pickle_weights(model, bits)

    convert_model(model.path, tmp_path / "new")

    content = (tmp_path / "new" / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    data = content[8 + int.from_bytes(content[:8], "little") :]
    for name, values in bits.items():
        begin, end = header[name]["data_offsets"]
        assert header[name]["dtype"] == "BF16"
        assert data[begin:end] == values.tobytes()


def test_shards_and_a_named_file_are_found(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    names = sorted(model.tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file_name, part in shards.items():
        pickle_weights(model, {name: model.tensors[name] for name in part}, file_name)
    weight_map = {name: file_name for file_name, part in shards.items() for name in part}
    index = model.path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    convert_model(model.path, tmp_path / "sharded")
    check_converted(tmp_path / "sharded", model.tensors)

    index.unlink()
    with pytest.raises(ModelFormatError, match=r"has several pickles \(pytorch_model-00001-of-00002\.bin, "):
        convert_model(model.path, tmp_path / "unclear")
    pickle_weights(model, name="ckpt.pt", wrapped_in="model")
    convert_model(model.path, tmp_path / "named", weights=model.path / "ckpt.pt")
    check_converted(tmp_path / "named", model.tensors)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda tensors: tensors.pop("ln_f.bias"), ModelFormatError, "1 tensors are missing; the first is ln_f.bias"),
        (
            lambda tensors: tensors.update({"score.weight": np.zeros(2, np.float32)}),
            UnsupportedModelError,
            "tensor score.weight: a model with this config has no such tensor",
        ),
        (
            lambda tensors: tensors.update({"ln_f.bias": np.zeros(2, np.float32)}),
            ModelFormatError,
            "tensor ln_f.bias has shape [2], but config.json requires [32]",
        ),
        (
            lambda tensors: tensors.update({"ln_f.bias": np.zeros(32, np.float64)}),
            UnsupportedModelError,
            "tensor ln_f.bias has type F64; supported are",
        ),
        (
            lambda tensors: tensors.update({"ln_f.bias": np.full(32, np.nan, np.float32)}),
            ModelFormatError,
            "tensor ln_f.bias has values that are NaN or infinite",
        ),
    ],
)
def test_weights_are_checked_against_the_config(
    change: Any, error: type[ModelError], message: str, make_model: Any, tmp_path: Path
) -> None:
    """As at a start. Nothing is left in the new folder's place."""
    model = make_model()
    tensors = dict(model.tensors)
    change(tensors)
    pickle_weights(model, tensors)
    with pytest.raises(error) as caught:
        convert_model(model.path, tmp_path / "there" / "new")
    assert message in str(caught.value)
    assert not (tmp_path / "there").exists() or not [*(tmp_path / "there").iterdir()]


def test_a_folder_that_exists_is_not_replaced(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ModelError, match="exists: name a new folder"):
        convert_model(model.path, tmp_path)
    with pytest.raises(ModelError, match=r"new: can't be written: "):
        convert_model(model.path, model.path / "config.json" / "new")


def test_a_folder_without_weights_is_named(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    (model.path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no model\.safetensors and no "):
        convert_model(model.path, tmp_path / "new")


# ---- adapters

RANK = 4
PREFIX = "base_model.model.transformer"


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """`make_adapter(tensors, r=8, …)`: a folder as PEFT saves it."""

    def make(tensors: Tensors, *, is_pickled: bool = False, **options: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "fan_in_fan_out": True, "lora_bias": False}
        (folder / "adapter_config.json").write_text(json.dumps(config | options))
        if is_pickled:
            (folder / "adapter_model.bin").write_bytes(save(tensors))
        else:
            save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return make


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lora(module: str, num_in: int, num_out: int) -> Tensors:
    a, b = draw(RANK, num_in, seed=1), draw(num_out, RANK, seed=2)
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}


def merged(model: Any, adapter: Path, tmp_path: Path) -> Tensors:
    convert_model(model.path, tmp_path / "merged", adapter=adapter)
    return load_file(tmp_path / "merged" / "model.safetensors")


def check_merged(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("is_pickled", [False, True])
@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 16 / 4),
        ({"use_rslora": True}, 16 / 2),
        ({"alpha_pattern": {"attn.c_attn": 2}}, 2 / 4),
        ({"alpha_pattern": {"^transformer.h.0.attn.c_attn": 2, "c_attn": 3}}, 2 / 4),
        ({"alpha_pattern": {r"h\.0\.attn\.c_attn": 2}}, 2 / 4),
        ({"alpha_pattern": {"h.1.attn.c_attn": 2, "^c_attn": 3, "attn": 4}}, 16 / 4),
        ({"r": 2, "rank_pattern": {"c_attn": 4}}, 16 / 4),
    ],
)
def test_lora_is_added_with_its_scale(
    *, is_pickled: bool, options: Any, scale: float, make_model: Any, make_adapter: Any, tmp_path: Path
) -> None:
    """W + s·B·A, transposed as Conv1D stores it; every other tensor is the base model's."""
    model = make_model()
    tensors = lora(f"{PREFIX}.h.0.attn.c_attn", 32, 96)
    found = merged(model, make_adapter(tensors, is_pickled=is_pickled, **options), tmp_path)
    a, b = tensors.values()
    delta = scale * (b @ a).T
    check_merged(found, model.tensors | {"h.0.attn.c_attn.weight": model.tensors["h.0.attn.c_attn.weight"] + delta})


def test_dora_scales_the_rows_of_the_sum(make_model: Any, make_adapter: Any, tmp_path: Path) -> None:
    model = make_model()
    tensors = lora(f"{PREFIX}.h.1.mlp.c_proj", 128, 32)
    a, b = tensors.values()
    magnitude = tensors[f"{PREFIX}.h.1.mlp.c_proj.lora_magnitude_vector"] = np.abs(draw(32, seed=3)) + 1
    found = merged(model, make_adapter(tensors, use_dora=True), tmp_path)
    rows = model.tensors["h.1.mlp.c_proj.weight"].T + 4 * (b @ a)
    rows *= (magnitude / np.sqrt((rows**2).sum(axis=1)))[:, None]
    check_merged(found, model.tensors | {"h.1.mlp.c_proj.weight": rows.T})


def test_embeddings_and_an_untied_head_are_merged(make_model: Any, make_adapter: Any, tmp_path: Path) -> None:
    model = make_model(tie_word_embeddings=False)
    tensors = {
        f"{PREFIX}.wte.lora_embedding_A": draw(RANK, 131, seed=1),
        f"{PREFIX}.wte.lora_embedding_B": draw(32, RANK, seed=2),
        **lora("base_model.model.lm_head", 32, 131),
    }
    embedding_a, embedding_b, a, b = tensors.values()
    found = merged(model, make_adapter(tensors), tmp_path)
    expected = {
        "wte.weight": model.tensors["wte.weight"] + 4 * (embedding_b @ embedding_a).T,
        "lm_head.weight": model.tensors["lm_head.weight"] + 4 * b @ a,
    }
    check_merged(found, model.tensors | expected)


def test_whole_tensors_replace_the_base_models(make_model: Any, make_adapter: Any, tmp_path: Path) -> None:
    """Biases, and layers that were trained whole."""
    model = make_model()
    tensors = {
        f"{PREFIX}.ln_f.weight": draw(32, seed=1),
        f"{PREFIX}.h.0.attn.c_attn.base_layer.bias": draw(96, seed=2),
        f"{PREFIX}.h.0.ln_1.modules_to_save.default.bias": draw(32, seed=3),
    }
    found = merged(model, make_adapter(tensors), tmp_path)
    norm, bias, other = tensors.values()
    check_merged(found, model.tensors | {"ln_f.weight": norm, "h.0.attn.c_attn.bias": bias, "h.0.ln_1.bias": other})


def test_tied_tensors_change_together_or_not_at_all(make_model: Any, make_adapter: Any, tmp_path: Path) -> None:
    model = make_model()
    values = draw(131, 32)
    both = {f"{PREFIX}.wte.weight": values, "base_model.model.lm_head.weight": values}
    check_merged(merged(model, make_adapter(both), tmp_path), model.tensors | {"wte.weight": values})
    for alone in (
        {f"{PREFIX}.wte.weight": values},
        {"base_model.model.lm_head.weight": values},
        lora("base_model.model.lm_head", 32, 131),
    ):
        with pytest.raises(
            UnsupportedModelError, match=r"changes wte\.weight or lm_head\.weight alone, but config\.json"
        ):
            convert_model(model.path, tmp_path / "new", adapter=make_adapter(alone))


C_ATTN = f"{PREFIX}.h.0.attn.c_attn"


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({}, {"peft_type": "IA3"}, "peft_type 'IA3' is not supported; supported: LORA"),
        ({}, {"layer_replication": [[0, 1]]}, "layer_replication is set; not supported: replicated layers"),
        ({}, {"lora_bias": True}, "lora_bias is set; not supported"),
        ({}, {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4' changes the base model"),
        (lora(C_ATTN, 32, 96), {"r": 8}, "has shape [4, 32], but adapter_config.json requires [8, 32]"),
        (lora(C_ATTN, 32, 96), {"r": 0}, "r is 0; it must be a whole number above 0"),
        (lora(C_ATTN, 32, 96), {"r": True}, "r is True; it must be a whole number above 0"),
        (lora(C_ATTN, 32, 96), {"lora_alpha": float("nan")}, "lora_alpha is nan; it must be a number above 0"),
        (
            lora(C_ATTN, 32, 96),
            {"alpha_pattern": {"(a+)+$": 1}},
            "alpha_pattern has the pattern '(a+)+$'; supported are",
        ),
        (lora(C_ATTN, 32, 96), {"rank_pattern": [1]}, "rank_pattern must be an object"),
        (lora(C_ATTN, 32, 96), {"use_dora": True}, "has lora_A, lora_B, which do not make a layer of the adapter"),
        (lora(C_ATTN, 32, 95), {}, "has shape [95, 4], but adapter_config.json requires [96, 4]"),
        (lora(f"{PREFIX}.h.9.attn.c_attn", 32, 96), {}, "the base model has no such layer"),
        (lora(f"{PREFIX}.ln_f", 32, 96), {}, "the base model has no such layer"),
        ({f"{C_ATTN}.lora_A.weight": draw(4, 32)}, {}, "has lora_A, which do not make a layer of the adapter"),
        ({f"{C_ATTN}.lora_C.weight": draw(4, 32)}, {}, "the base model has no such tensor"),
        ({"base_model.model.score.weight": draw(2, 32)}, {}, "the base model has no such tensor"),
        ({f"{PREFIX}.ln_f.weight": draw(31)}, {}, "has shape [31], but config.json requires [32]"),
        ({f"{PREFIX}.ln_f.weight": np.full(32, np.inf, np.float32)}, {}, "values that are NaN or infinite"),
        (
            {k: v * np.float32(1e25) for k, v in lora(C_ATTN, 32, 96).items()},
            {},
            "gives values that are NaN or infinite",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    *, tensors: Tensors, options: Any, message: str, make_model: Any, make_adapter: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        convert_model(make_model().path, tmp_path / "new", adapter=make_adapter(tensors, **options))
    assert message in str(caught.value)
    assert str(tmp_path / "adapter") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_merged_value_must_fit_the_stored_type(make_model: Any, make_adapter: Any, tmp_path: Path) -> None:
    model = make_model()
    model.save({name: tensor.astype(np.float16) for name, tensor in model.tensors.items()})
    tensors = {name: values * np.float32(1e3) for name, values in lora(C_ATTN, 32, 96).items()}
    with pytest.raises(ModelFormatError, match="exceeds the range of F16, in which the base model is stored"):
        convert_model(model.path, tmp_path / "new", adapter=make_adapter(tensors))


def test_a_folder_that_is_no_adapter_is_named(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ModelNotFoundError, match=r"adapter_config\.json: not found; an adapter folder needs"):
        convert_model(model.path, tmp_path / "new", adapter=model.path)
    (model.path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelNotFoundError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        convert_model(model.path, tmp_path / "new", adapter=model.path)
