"""GPT-2's tensors, by the names of `transformers`' GPT2LMHeadModel without the `transformer.` prefix."""

from __future__ import annotations

from collections.abc import Iterator

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.model.architectures.architecture import TensorSpec

EMBEDDING, POSITIONS, LM_HEAD = "wte.weight", "wpe.weight", "lm_head.weight"


def gpt2_tensor_specs(config: ModelConfig) -> Iterator[TensorSpec]:
    """V vocabulary, P positions, C width, I inner width. Conv1D weights are stored as (in, out)."""
    width, inner = config.width, config.inner_width
    yield TensorSpec(name=EMBEDDING, shape=(config.vocab_size, width), is_matrix=True)  # (V, C)
    yield TensorSpec(name=POSITIONS, shape=(config.num_positions, width))  # (P, C)
    for layer in range(config.num_layers):
        yield from _layer_norm(f"h.{layer}.ln_1", width)
        yield from _conv1d(f"h.{layer}.attn.c_attn", width, 3 * width)
        yield from _conv1d(f"h.{layer}.attn.c_proj", width, width)
        yield from _layer_norm(f"h.{layer}.ln_2", width)
        yield from _conv1d(f"h.{layer}.mlp.c_fc", width, inner)
        yield from _conv1d(f"h.{layer}.mlp.c_proj", inner, width)
    yield from _layer_norm("ln_f", width)
    if not config.has_tied_embeddings:
        yield TensorSpec(name=LM_HEAD, shape=(config.vocab_size, width), is_matrix=True)  # (V, C)


def _layer_norm(name: str, width: int) -> Iterator[TensorSpec]:
    yield TensorSpec(name=f"{name}.weight", shape=(width,))
    yield TensorSpec(name=f"{name}.bias", shape=(width,))


def _conv1d(name: str, num_in: int, num_out: int) -> Iterator[TensorSpec]:
    yield TensorSpec(name=f"{name}.weight", shape=(num_in, num_out), is_matrix=True, is_transposed=True)
    yield TensorSpec(name=f"{name}.bias", shape=(num_out,))
