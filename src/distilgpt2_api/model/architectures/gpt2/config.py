"""Reads the options of GPT2Config (`transformers`) into a `ModelConfig`.

Every option of GPT2Config that changes the forward pass is applied or refused by name. All others are ignored: dropout
acts only in training, `reorder_and_upcast_attn` only changes the order of computation, and `initializer_range`,
`summary_*` and the rest don't affect the forward pass.
"""

from distilgpt2_api.core.config import Activation, ModelConfig
from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_repr
from distilgpt2_api.model.architectures.config_options import ConfigOptions

MAX_SIZES = {
    "vocab_size": 2_000_000,
    "n_positions": 1_000_000,
    "n_layer": 1_000,
    "n_head": 1_000,
    "n_embd": 65_536,
    "n_inner": 1_000_000,
}
"""Far larger than any GPT-2 (XL: 50 257, 1 024, 48, 25, 1 600, 6 400), but their products stay manageable."""
MAX_HEAD_SIZE = 512

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
"""GPT2Config's `attribute_map`: its aliases of options."""

DEFAULT_TOKEN_ID = 50256
"""GPT2Config's default for both tokens."""

FOREIGN_OPTIONS = {
    "add_cross_attention": "cross-attention",
    "is_encoder_decoder": "encoder-decoder models",
    "quantization_config": "checkpoints that are already quantised",
    "pruned_heads": "pruned heads",
    "rope_scaling": "rotary positions",
    "sliding_window": "sliding-window attention",
}
"""Options of other models, which this engine does not compute."""


def read_gpt2_config(options: ConfigOptions) -> ModelConfig:
    """The model's shape and arithmetic.

    Raises ModelFormatError (a bad value) or UnsupportedModelError (an option that is not implemented), each naming the
    file and the option.
    """
    options = options.with_aliases(ALIASES)
    path = options.path
    architectures = options.values.get("architectures") or ["GPT2LMHeadModel"]
    # DoubleHeads is GPT2LMHeadModel with a second head; GPT2Model is the body, whose head is tied.
    known = {"GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"}
    if not isinstance(architectures, list) or not known.intersection(map(str, architectures)):
        raise UnsupportedModelError(
            f"{path}: architectures {safe_repr(architectures)} are not supported; supported: GPT2LMHeadModel"
        )
    options.refuse(FOREIGN_OPTIONS)
    width = _size(options, "n_embd", 768)
    num_heads = _size(options, "n_head", 12)
    if width % num_heads:
        raise ModelFormatError(f"{path}: n_embd {width} is not a multiple of n_head {num_heads}")
    if width // num_heads > MAX_HEAD_SIZE:
        raise UnsupportedModelError(
            f"{path}: head size {width // num_heads} is too large; at most {MAX_HEAD_SIZE} is supported"
        )
    vocab_size = _size(options, "vocab_size", 50257)
    return ModelConfig(
        vocab_size=vocab_size,
        num_positions=_size(options, "n_positions", 1024),
        num_layers=_size(options, "n_layer", 12),
        num_heads=num_heads,
        width=width,
        inner_width=4 * width if options.values.get("n_inner") is None else _size(options, "n_inner", 0),
        activation=_activation(options),
        layer_norm_epsilon=options.fraction("layer_norm_epsilon", 1e-5),
        has_tied_embeddings=options.flag("tie_word_embeddings", default=True),
        is_attention_scaled=options.flag("scale_attn_weights", default=True),
        is_attention_scaled_by_layer=options.flag("scale_attn_by_inverse_layer_idx", default=False),
        bos_token_id=options.token_id("bos_token_id", DEFAULT_TOKEN_ID, vocab_size),
        eos_token_ids=options.eos_token_ids(DEFAULT_TOKEN_ID, vocab_size),
    )


def _size(options: ConfigOptions, name: str, default: int) -> int:
    return options.size(name, default, most=MAX_SIZES[name])


def _activation(options: ConfigOptions) -> Activation:
    name = options.values.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"{options.path}: activation_function {safe_repr(name)} is not supported; "
            f"supported are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
