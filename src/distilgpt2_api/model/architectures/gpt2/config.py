"""Reads a model folder's `config.json` (GPT2Config of `transformers`) into a `ModelConfig`.

The end tokens come from `generation_config.json` if that names any, as in `transformers`. Nothing else is read there:
the defaults of sampling parameters are the API's.

Every option of GPT2Config that changes the forward pass is honoured or refused by name. Dropout acts in training
only, `reorder_and_upcast_attn` computes the same in another order, `initializer_range`, `summary_*` and the rest
don't touch the forward pass: these are read over.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distilgpt2_api.core.config import Activation, ModelConfig
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.core.model_files import has_file, parse_json_object, read_model_file, shown
from distilgpt2_api.core.model_folder import CONFIG_FILE, GENERATION_CONFIG_FILE

MAX_CONFIG_BYTES = 1_000_000
MAX_SIZES = {
    "vocab_size": 2_000_000,
    "n_positions": 1_000_000,
    "n_layer": 1_000,
    "n_head": 1_000,
    "n_embd": 65_536,
    "n_inner": 1_000_000,
}
"""Far beyond any GPT-2 (XL: 50 257, 1 024, 48, 25, 1 600, 6 400), and small enough that their products stay sane."""
MAX_HEAD_SIZE = 512
MAX_EOS_TOKENS = 64
"""Each costs a beam search a candidate for every beam and step."""

ACTIVATIONS = {
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu": Activation.GELU_ERF,
    "gelu_python": Activation.GELU_ERF,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "tanh": Activation.TANH,
}
"""`activation_function`: names of `transformers.activations.ACT2FN` that compute the same function share a value."""

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""GPT2Config's `attribute_map`: other names that it reads for the same options."""

EOS = "eos_token_id"
DEFAULT_TOKEN_ID = 50256
"""GPT2Config's, of both tokens."""

FOREIGN_OPTIONS = {
    "add_cross_attention": "cross-attention",
    "is_encoder_decoder": "encoder-decoder models",
    "quantization_config": "checkpoints that are already quantised",
    "pruned_heads": "pruned heads",
    "rope_scaling": "rotary positions",
    "sliding_window": "sliding-window attention",
}
"""Options that, when set, make another model than this engine computes."""


def read_model_config(folder: Path) -> ModelConfig:
    """The model's shape and arithmetic.

    Raises ModelNotFoundError (no config.json), ModelFormatError (not what GPT2Config writes) or UnsupportedModelError
    (an option that is not implemented), each naming the file and the option.
    """
    path = folder / CONFIG_FILE
    options = _read_options(path)
    _refuse_foreign(path, options)
    width = _size(path, options, "n_embd", 768)
    num_heads = _size(path, options, "n_head", 12)
    if width % num_heads:
        raise ModelFormatError(f"{path}: n_embd {width} is not a multiple of n_head {num_heads}")
    if width // num_heads > MAX_HEAD_SIZE:
        raise UnsupportedModelError(f"{path}: head size {width // num_heads}: at most {MAX_HEAD_SIZE} is supported")
    vocab_size = _size(path, options, "vocab_size", 50257)
    return ModelConfig(
        vocab_size=vocab_size,
        num_positions=_size(path, options, "n_positions", 1024),
        num_layers=_size(path, options, "n_layer", 12),
        num_heads=num_heads,
        width=width,
        inner_width=4 * width if options.get("n_inner") is None else _size(path, options, "n_inner", 0),
        activation=_activation(path, options),
        layer_norm_epsilon=_epsilon(path, options),
        has_tied_embeddings=_flag(path, options, "tie_word_embeddings", default=True),
        is_attention_scaled=_flag(path, options, "scale_attn_weights", default=True),
        is_attention_scaled_by_layer=_flag(path, options, "scale_attn_by_inverse_layer_idx", default=False),
        bos_token_id=_token_id(path, options, "bos_token_id", vocab_size),
        eos_token_ids=_read_eos_token_ids(folder, options, vocab_size),
    )


def _read_options(path: Path) -> dict[str, Any]:
    if not has_file(path):
        raise ModelNotFoundError(f"{path}: not found; a model folder needs config.json")
    options = parse_json_object(path, read_model_file(path, MAX_CONFIG_BYTES))
    for alias, name in ALIASES.items():
        if alias in options and options.setdefault(name, options[alias]) != options[alias]:
            raise ModelFormatError(f"{path}: {alias} and {name} are the same option, and differ")
    return options


def _refuse_foreign(path: Path, options: dict[str, Any]) -> None:
    model_type = options.get("model_type", "gpt2")
    if model_type != "gpt2":
        raise UnsupportedModelError(f"{path}: model_type {shown(model_type)}: only gpt2 is supported")
    architectures = options.get("architectures") or ["GPT2LMHeadModel"]
    # DoubleHeads is GPT2LMHeadModel with a second head; GPT2Model is the body, whose head is tied.
    known = {"GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"}
    if not isinstance(architectures, list) or not known.intersection(map(str, architectures)):
        raise UnsupportedModelError(f"{path}: architectures {shown(architectures)}: only GPT2LMHeadModel is supported")
    for name, what in FOREIGN_OPTIONS.items():
        if options.get(name):
            raise UnsupportedModelError(f"{path}: {name} is set; not supported: {what}")


def _size(path: Path, options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    # bool is an int to Python, not to a shape
    if type(value) is not int or not 1 <= value <= MAX_SIZES[name]:
        raise ModelFormatError(
            f"{path}: {name} is {shown(value)}; it must be a whole number from 1 to {MAX_SIZES[name]}"
        )
    return value


def _flag(path: Path, options: dict[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise ModelFormatError(f"{path}: {name} is {shown(value)}; it must be true or false")
    return value


def _activation(path: Path, options: dict[str, Any]) -> Activation:
    name = options.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"{path}: activation_function {shown(name)} is not supported; supported are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _epsilon(path: Path, options: dict[str, Any]) -> float:
    value = options.get("layer_norm_epsilon", 1e-5)
    if type(value) not in (int, float) or not (math.isfinite(value) and 0.0 < value < 1.0):
        raise ModelFormatError(f"{path}: layer_norm_epsilon is {shown(value)}; it must be a number between 0 and 1")
    return float(value)


def _token_id(path: Path, options: dict[str, Any], name: str, vocab_size: int) -> int | None:
    """None where the config has none, or one beyond the vocabulary, as small models cut from GPT-2's config have."""
    value = options.get(name, DEFAULT_TOKEN_ID)
    if value is None:
        return None
    if not _is_token_id(value):
        raise ModelFormatError(f"{path}: {name} is {shown(value)}; it must be a token id or null")
    return int(value) if value < vocab_size else None


def _read_eos_token_ids(folder: Path, options: dict[str, Any], vocab_size: int) -> tuple[int, ...]:
    """In the file's order; those beyond the vocabulary are left out, as in `_token_id`."""
    path = folder / GENERATION_CONFIG_FILE
    if has_file(path):
        generation = parse_json_object(path, read_model_file(path, MAX_CONFIG_BYTES))
        if ids := _eos_token_ids(path, generation.get(EOS), vocab_size):
            return ids
    return _eos_token_ids(folder / CONFIG_FILE, options.get(EOS, DEFAULT_TOKEN_ID), vocab_size)


def _eos_token_ids(path: Path, value: Any, vocab_size: int) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(map(_is_token_id, ids)):
        raise ModelFormatError(f"{path}: {EOS} is {shown(value)}; it must be a token id, a list of them or null")
    if len(ids) > MAX_EOS_TOKENS:
        raise ModelFormatError(f"{path}: {EOS} has {len(ids)} tokens; at most {MAX_EOS_TOKENS} are supported")
    return tuple(dict.fromkeys(token_id for token_id in ids if token_id < vocab_size))


def _is_token_id(value: Any) -> bool:
    """A bool is an int to Python, and no token id."""
    return type(value) is int and value >= 0
