"""config.json: every option that changes the arithmetic is applied or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.config import Activation, ModelConfig
from distilgpt2_api.core.errors import ModelError, ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.model.architectures.registry import read_model_config


def read(folder: Path, **options: Any) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(options))
    return read_model_config(folder)


def test_an_empty_config_is_gpt2_small(tmp_path: Path) -> None:
    """GPT2Config's own defaults."""
    assert read(tmp_path) == ModelConfig(
        vocab_size=50257,
        num_positions=1024,
        num_layers=12,
        num_heads=12,
        width=768,
        inner_width=3072,
        bos_token_id=50256,
        eos_token_ids=(50256,),
    )


def test_options_that_change_the_arithmetic_are_applied(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        n_embd=64,
        n_head=4,
        n_layer=3,
        n_positions=77,
        n_inner=100,
        vocab_size=999,
        activation_function="relu",
        layer_norm_epsilon=1e-3,
        scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=7,
    )

    assert config == ModelConfig(
        vocab_size=999,
        num_positions=77,
        num_layers=3,
        num_heads=4,
        width=64,
        inner_width=100,
        activation=Activation.RELU,
        layer_norm_epsilon=1e-3,
        has_tied_embeddings=False,
        is_attention_scaled=False,
        is_attention_scaled_by_layer=True,
        bos_token_id=None,
        eos_token_ids=(7,),
    )
    assert config.head_size == 16


def test_other_names_of_the_same_options(tmp_path: Path) -> None:
    config = read(tmp_path, hidden_size=64, num_attention_heads=2, num_hidden_layers=1, max_position_embeddings=10)

    assert (config.width, config.num_heads, config.num_layers, config.num_positions) == (64, 2, 1, 10)


def test_a_token_id_beyond_the_vocabulary_is_none(tmp_path: Path) -> None:
    """Small models cut from GPT-2's config keep its 50256."""
    assert read(tmp_path, vocab_size=100).eos_token_id is None


@pytest.mark.reported("a chat model's config.json with a list of end tokens; transformers' GenerationConfig takes one")
def test_several_tokens_may_end_a_text(tmp_path: Path) -> None:
    """The first one separates documents. Ids beyond the vocabulary are left out."""
    config = read(tmp_path, vocab_size=100, eos_token_id=[7, 3, 7, 50256])
    assert (config.eos_token_ids, config.eos_token_id) == ((7, 3), 7)
    assert read(tmp_path, vocab_size=100, eos_token_id=[]).eos_token_ids == ()


@pytest.mark.reported("fine-tuned models on the hub that name their end tokens in generation_config.json alone")
@pytest.mark.parametrize(
    ("named", "ids"), [([7, 3], (7, 3)), (5, (5,)), (None, (50256,)), ([99_999], (50256,)), ([], (50256,))]
)
def test_generation_configs_end_tokens_go_before_configs(tmp_path: Path, named: object, ids: tuple[int, ...]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named, "temperature": 0.1}))
    assert read(tmp_path, eos_token_id=50256).eos_token_ids == ids


@pytest.mark.parametrize("content", [b"", b"[]", b'{"eos_token_id": "a"}', b'{"eos_token_id": [-1]}'])
def test_a_broken_generation_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"generation_config.json: "):
        read(tmp_path)


@pytest.mark.reported("config.json saved by a Windows editor, which puts a byte-order mark first")
def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"vocab_size": 99}')
    assert read_model_config(tmp_path).vocab_size == 99


@pytest.mark.parametrize(
    "options",
    [
        {"resid_pdrop": 0.5, "attn_pdrop": 0.1, "embd_pdrop": 0.1},
        {"reorder_and_upcast_attn": True},
        {"n_ctx": 512, "initializer_range": 0.02, "summary_type": "cls_index", "torch_dtype": "float16"},
        {"quantization_config": None, "add_cross_attention": False, "pruned_heads": {}},
        {"architectures": None},
        {"architectures": ["GPT2DoubleHeadsModel"]},
    ],
)
def test_options_that_change_nothing_change_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    assert read(tmp_path, **options) == read(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
        ({"activation_function": "quick_gelu"}, "activation_function 'quick_gelu'"),
        ({"activation_function": ["relu"]}, "activation_function"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"n_embd": 4096, "n_head": 2}, "head size 2048"),
    ],
)
def test_other_arithmetic_is_refused_by_name(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        read(tmp_path, **options)

    assert str(tmp_path / "config.json") in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embd": 65}, "n_embd 65 is not a multiple of n_head 12"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_layer": -1}, "n_layer is -1"),
        ({"n_layer": 10**9}, "n_layer is 1000000000"),
        ({"vocab_size": 2**62}, "vocab_size is 4611686018427387904"),
        ({"n_positions": 1e3}, "n_positions is 1000.0"),
        ({"n_head": "12"}, "n_head is '12'"),
        ({"n_head": True}, "n_head is True"),
        ({"n_inner": 0}, "n_inner is 0"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
        ({"layer_norm_epsilon": None}, "layer_norm_epsilon is None"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"scale_attn_weights": 1}, "scale_attn_weights is 1"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"eos_token_id": [1, -2]}, r"eos_token_id is \[1, -2\]"),
        ({"eos_token_id": [1, True]}, r"eos_token_id is \[1, True\]"),
        ({"eos_token_id": {}}, r"eos_token_id is \{\}"),
        ({"eos_token_id": [*range(65)]}, "eos_token_id has 65 tokens; at most 64"),
        ({"hidden_size": 64, "n_embd": 96}, "hidden_size and n_embd"),
    ],
)
def test_invalid_values_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        read(tmp_path, **options)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"{}" + b" " * 1_000_000], ids=range(6)
)
def test_a_file_that_is_not_a_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(ModelFormatError, match=r"config\.json"):
        read_model_config(tmp_path)


def test_no_config_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json: not found"):
        read_model_config(tmp_path)


def test_a_folder_in_place_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()

    with pytest.raises(ModelError, match=r"config\.json"):
        read_model_config(tmp_path)
