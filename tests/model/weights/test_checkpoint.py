"""Checkpoints: which files and tensors are read, and which are refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from distilgpt2_api.core.errors import ModelError, ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.model.architectures.registry import count_weights, read_model_config
from distilgpt2_api.model.weights.checkpoint import Checkpoint, open_checkpoint
from distilgpt2_api.model.weights.safetensors_file import write_safetensors

Tensors = dict[str, NDArray[Any]]


def open_folder(folder: Path) -> Checkpoint:
    return open_checkpoint(folder, read_model_config(folder))


def check_same(checkpoint: Checkpoint, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(checkpoint.tensor(name), tensor)


def shard(model: Any, weight_map: dict[str, str] | None = None, prefix: str = "transformer.") -> None:
    """Splits the single file in two; `weight_map` replaces the true index."""
    names = sorted(model.tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file_name, part in halves.items():
        model.save({prefix + name: model.tensors[name] for name in part}, file_name)
    true_map = {prefix + name: file_name for file_name, part in halves.items() for name in part}
    index = {"metadata": {}, "weight_map": true_map if weight_map is None else weight_map}
    (model.path / "model.safetensors.index.json").write_text(json.dumps(index))
    (model.path / "model.safetensors").unlink()


@pytest.mark.reported("state dicts saved under torch.compile, DDP, FSDP, and by PEFT without unwrapping the model")
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "transformer.",
        "_orig_mod.transformer.",
        "module.transformer.",
        "module._orig_mod.transformer.",
        "base_model.model.transformer.",
        "_fsdp_wrapped_module.transformer.",
        "transformer._orig_mod.",
    ],
)
def test_names_with_and_without_prefix(make_model: Any, prefix: str) -> None:
    model = make_model()
    model.save({prefix + name: tensor for name, tensor in model.tensors.items()})

    check_same(open_folder(model.path), model.tensors)


def test_an_untied_head_has_no_prefix(make_model: Any) -> None:
    """As GPT2LMHeadModel writes it: the body under `transformer.`, the head beside it."""
    model = make_model(tie_word_embeddings=False)
    model.save({name if name == "lm_head.weight" else f"transformer.{name}": t for name, t in model.tensors.items()})

    check_same(open_folder(model.path), model.tensors)


@pytest.mark.reported("safetensors' save_model, which keeps one tensor of a tied pair: lm_head.weight, by its name")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("is_tied", "has_metadata"), [(True, False), (True, True), (False, True)])
def test_either_tensor_of_a_tied_pair_is_enough(make_model: Any, dtype: Any, is_tied: bool, has_metadata: bool) -> None:
    """The metadata name the one that was left out; if config.json ties them, none is needed."""
    model = make_model(tie_word_embeddings=is_tied)
    tensors = {f"transformer.{name}": tensor.astype(dtype) for name, tensor in model.tensors.items()}
    embedding = tensors.pop("transformer.wte.weight")
    tensors.pop("transformer.lm_head.weight", None)
    metadata = {"format": "pt", "transformer.wte.weight": "lm_head.weight"} if has_metadata else {"format": "pt"}
    save_file({**tensors, "lm_head.weight": embedding}, model.path / "model.safetensors", metadata=metadata)
    checkpoint = open_folder(model.path)
    checkpoint.check_tied_head()
    check_same(checkpoint, {"wte.weight": embedding.astype(np.float32)})
    if not is_tied:
        check_same(checkpoint, {"lm_head.weight": embedding.astype(np.float32)})


@pytest.mark.reported("safetensors' save_model of a GPT-2 whose head was tied by hand")
def test_a_head_that_was_left_out_is_the_embedding(make_model: Any) -> None:
    """Although config.json does not tie them."""
    model = make_model(tie_word_embeddings=False)
    body = {name: tensor for name, tensor in model.tensors.items() if name != "lm_head.weight"}
    save_file(body, model.path / "model.safetensors", metadata={"lm_head.weight": "wte.weight"})
    check_same(open_folder(model.path), {**body, "lm_head.weight": body["wte.weight"]})


@pytest.mark.reported("a git clone of a hub repository without git-lfs")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_says_how_to_get_the_file(make_model: Any, name: str) -> None:
    model = make_model()
    (model.path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n")
    with pytest.raises(ModelFormatError, match=rf"{name}: a pointer of git-lfs.*git lfs pull"):
        open_folder(model.path)


@pytest.mark.reported("a PEFT checkpoint that was never merged")
@pytest.mark.parametrize("name", ["h.0.attn.c_attn.lora_A.default.weight", "h.0.attn.c_attn.base_layer.weight"])
def test_an_adapter_that_is_not_merged_says_how_to_merge_it(make_model: Any, name: str) -> None:
    model = make_model()
    model.save(model.tensors | {f"base_model.model.transformer.{name}": np.zeros((32, 96), np.float32)})
    with pytest.raises(UnsupportedModelError, match=r"adapter that is not merged.*merge_and_unload"):
        open_folder(model.path)


@pytest.mark.reported("folders that Trainer, PEFT, OpenAI's release and the hub's cache leave, given as a model")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["training_args.bin", "optimizer.pt", "rng_state.pth"], r"no model\.safetensors and no .*index\.json$"),
        (["training_args.bin", "pytorch_model.bin"], r"pytorch_model\.bin: pickle files are not served; convert the"),
        (["adapter_model.safetensors"], "a PEFT adapter; merge it"),
        (["checkpoint-500", "checkpoint-1000"], "give one of them, such as checkpoint-1000"),
        (["tf_model.h5"], r"tf_model\.h5 has an unsupported format"),
        (["model.ckpt.data-00000-of-00001"], "has an unsupported format"),
        (["model.fp16.safetensors"], r"if model\.fp16\.safetensors has all the weights, rename it"),
    ],
)
def test_a_folder_without_weights_says_what_it_is(make_model: Any, names: list[str], message: str) -> None:
    model = make_model()
    (model.path / "model.safetensors").unlink()
    for name in names:
        (model.path / name).touch()
    with pytest.raises(ModelError, match=message):
        open_folder(model.path)


def test_half_precision_is_widened(make_model: Any) -> None:
    """F16 exactly; BF16 too."""
    model = make_model()
    halves = {name: tensor.astype(np.float16) for name, tensor in model.tensors.items()}
    model.save(halves)
    check_same(open_folder(model.path), {name: half.astype(np.float32) for name, half in halves.items()})

    bits = {name: (tensor.view(np.uint32) >> 16).astype(np.uint16) for name, tensor in model.tensors.items()}
    with (model.path / "model.safetensors").open("wb") as file:
        write_safetensors(file, bits, {})
    widened = {name: (part.astype(np.uint32) << 16).view(np.float32) for name, part in bits.items()}
    check_same(open_folder(model.path), widened)


def test_buffers_and_a_second_head_are_ignored(make_model: Any) -> None:
    """Old checkpoints saved the causal masks; GPT2DoubleHeadsModel has another head, and so has TRL's PPO."""
    model = make_model()
    mask = np.ones((1, 1, 128, 128), bool)
    extra = {
        "h.0.attn.bias": mask,
        "transformer.h.1.attn.bias": mask,
        "h.0.attn.masked_bias": np.array(-1e9, np.float32),
        "multiple_choice_head.summary.weight": np.zeros((1, 32), np.float32),
        "v_head.summary.weight": np.zeros((1, 32), np.float32),
    }
    model.save(model.tensors | extra)

    check_same(open_folder(model.path), model.tensors)


def test_shards_are_put_together(make_model: Any) -> None:
    model = make_model()
    shard(model)

    checkpoint = open_folder(model.path)

    check_same(checkpoint, model.tensors)
    assert len(checkpoint.files) == 2


def test_links_into_the_hubs_blobs_are_followed(make_model: Any, tmp_path: Path) -> None:
    """The hub's cache: `snapshots/<revision>/model.safetensors` is a link to `blobs/<hash>`."""
    model = make_model()
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model.path / name).rename(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / f"hash-of-{name}")

    check_same(open_folder(snapshot), model.tensors)


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def with_tensor(name: str, tensor: NDArray[Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: tensor}


SPOILT: dict[str, tuple[Callable[[Tensors], Tensors], type[ModelError], str]] = {
    "a missing tensor": (
        without("h.1.mlp.c_fc.bias"),
        ModelFormatError,
        r"missing; the first is h\.1\.mlp\.c_fc\.bias",
    ),
    "a transposed matrix": (
        lambda tensors: tensors | {"h.0.attn.c_attn.weight": np.ascontiguousarray(tensors["h.0.attn.c_attn.weight"].T)},
        ModelFormatError,
        r"tensor h\.0\.attn\.c_attn\.weight has shape \[96, 32\], but config\.json requires \[32, 96\]",
    ),
    "a vocabulary of another size": (
        with_tensor("wte.weight", np.zeros((130, 32), np.float32)),
        ModelFormatError,
        r"tensor wte\.weight has shape",
    ),
    "a layer more": (
        with_tensor("h.2.ln_1.weight", np.zeros(32, np.float32)),
        UnsupportedModelError,
        r"tensor h\.2\.ln_1\.weight: a model with this config has no such tensor",
    ),
    "an adapter": (
        with_tensor("h.0.attn.c_attn.lora_A.weight", np.zeros(32, np.float32)),
        UnsupportedModelError,
        "lora_A",
    ),
    "double precision": (
        with_tensor("ln_f.bias", np.zeros(32, np.float64)),
        UnsupportedModelError,
        r"tensor ln_f\.bias has type F64; supported are F32, F16 and BF16",
    ),
    "integers": (with_tensor("ln_f.bias", np.zeros(32, np.int8)), UnsupportedModelError, "type I8"),
    "a tensor under both names": (
        with_tensor("transformer.ln_f.bias", np.zeros(32, np.float32)),
        ModelFormatError,
        "stored twice",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "message"), SPOILT.values(), ids=SPOILT)
def test_a_broken_checkpoint_is_refused_by_name(
    make_model: Any, spoil: Callable[[Tensors], Tensors], error: type[ModelError], message: str
) -> None:
    """Before a value is read."""
    model = make_model()
    model.save(spoil(model.tensors))

    with pytest.raises(error, match=message) as raised:
        open_folder(model.path)

    assert str(model.path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_untied_head_that_is_not_there(make_model: Any) -> None:
    model = make_model()
    model.save_config(tie_word_embeddings=False)

    with pytest.raises(ModelFormatError, match=r"missing; the first is lm_head\.weight"):
        open_folder(model.path)


def test_a_redundant_head_must_be_the_embeddings(make_model: Any) -> None:
    model = make_model()
    model.save(model.tensors | {"lm_head.weight": model.tensors["wte.weight"]})
    open_folder(model.path).check_tied_head()

    model.save(model.tensors | {"lm_head.weight": model.tensors["wte.weight"] + 1})
    with pytest.raises(ModelFormatError, match=r"differs from wte\.weight"):
        open_folder(model.path).check_tied_head()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nan_and_infinity_name_their_tensor(make_model: Any, value: float, dtype: Any) -> None:
    model = make_model()
    model.tensors["h.1.mlp.c_proj.weight"][7, 3] = value
    model.save({name: tensor.astype(dtype) for name, tensor in model.tensors.items()})
    checkpoint = open_folder(model.path)

    with pytest.raises(ModelFormatError, match=r"tensor h\.1\.mlp\.c_proj\.weight has values that are NaN"):
        checkpoint.tensor("h.1.mlp.c_proj.weight")


def test_pickle_files_alone_are_refused_with_the_way_out(make_model: Any) -> None:
    model = make_model()
    (model.path / "model.safetensors").rename(model.path / "pytorch_model.bin")

    with pytest.raises(
        UnsupportedModelError, match=r"pytorch_model\.bin: pickle .* distilgpt2-api convert \S+ NEW_FOLDER"
    ):
        open_folder(model.path)


def test_no_weights_at_all(make_model: Any) -> None:
    model = make_model()
    (model.path / "model.safetensors").unlink()

    with pytest.raises(ModelNotFoundError, match=r"no model\.safetensors"):
        open_folder(model.path)


@pytest.mark.parametrize(
    "file_name",
    [
        "../model.safetensors",
        "/etc/passwd",
        "a\0.safetensors",
        "\ud800.safetensors",
        "a\n.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "weights.bin",
        "",
        "..",
        5,
        None,
    ],
)
def test_an_index_that_points_elsewhere_is_refused(make_model: Any, file_name: Any) -> None:
    model = make_model()
    shard(model, {"transformer.wte.weight": file_name})

    with pytest.raises(ModelFormatError, match=r"index\.json: transformer\.wte\.weight is in"):
        open_folder(model.path)


def test_an_index_of_a_million_shards_is_refused(make_model: Any) -> None:
    model = make_model()
    shard(model, {f"tensor.{index}": f"{index}.safetensors" for index in range(101)})
    with pytest.raises(ModelFormatError, match=r"index\.json: more than 100 shards"):
        open_folder(model.path)

    os.truncate(model.path / "model.safetensors.index.json", 1 << 30)
    with pytest.raises(ModelFormatError, match=r"index\.json: has \d+ bytes; the maximum is 8000000"):
        open_folder(model.path)


def test_the_number_of_weights_is_the_models(make_model: Any) -> None:
    for options in ({}, {"tie_word_embeddings": False}, {"n_inner": 50, "n_layer": 5}):
        model = make_model(**options)
        stored = load_file(model.path / "model.safetensors")
        assert count_weights(read_model_config(model.path)) == sum(values.size for values in stored.values())


def test_a_link_out_of_the_folder_is_refused(make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    (model.path / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (model.path / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")

    with pytest.raises(ModelFormatError, match="leads out of the model folder"):
        open_folder(model.path)


def test_a_shard_that_is_missing_or_incomplete(make_model: Any) -> None:
    model = make_model()
    shard(model)
    second = model.path / "model-00002-of-00002.safetensors"
    model.save({"transformer.wpe.weight": model.tensors["wpe.weight"]}, second.name)
    with pytest.raises(ModelFormatError, match=r"00002\.safetensors: tensor .* is missing, but the index says"):
        open_folder(model.path)

    second.unlink()
    with pytest.raises(ModelFormatError, match=r"00002\.safetensors: can't be read"):
        open_folder(model.path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 99999], ids=range(6)
)
def test_an_invalid_index(make_model: Any, content: str) -> None:
    model = make_model()
    shard(model)
    (model.path / "model.safetensors.index.json").write_text(content)

    with pytest.raises(ModelFormatError, match=r"index\.json: "):
        open_folder(model.path)


def test_a_config_that_claims_more_than_the_file_takes_no_memory(make_model: Any) -> None:
    """Terabytes of weights by config.json are refused because the file is too small."""
    model = make_model()
    model.save_config(n_embd=65536, n_head=512, n_layer=1000, vocab_size=2_000_000, n_inner=1_000_000)

    with pytest.raises(ModelFormatError, match=r"config\.json: describes 148384539527680 weights, at least .* have 1"):
        open_folder(model.path)
