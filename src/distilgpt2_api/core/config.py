"""What a model is, and how the engine is to run it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BLOCK_SIZE = 32
"""Tokens in a block of the KV cache: OpenVINO's CPU kernels know no other."""


MAX_DRAFT_TOKENS = 15
"""With the sequence's own one they are a step of 16 tokens: longer ones gain no more."""


class Precision(StrEnum):
    """What weights and arithmetic the forward pass uses."""

    INT8 = "int8"
    """Weights symmetric int8, one scale per output channel; activations quantised on the fly in groups."""
    BF16 = "bf16"
    F32 = "f32"
    """The reference: token-exact with `transformers` in float32."""


class Activation(StrEnum):
    """`activation_function` of GPT2Config, by what it computes."""

    GELU_TANH = "gelu_tanh"
    GELU_ERF = "gelu_erf"
    RELU = "relu"
    SILU = "silu"
    TANH = "tanh"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A GPT-2's shape and arithmetic (Radford et al. 2019; field names of GPT2Config in brackets)."""

    vocab_size: int
    num_positions: int
    """[n_positions]"""
    num_layers: int
    """[n_layer]"""
    num_heads: int
    """[n_head]"""
    width: int
    """[n_embd]; a multiple of `num_heads`."""
    inner_width: int
    """[n_inner], or 4 times `width`."""
    activation: Activation = Activation.GELU_TANH
    layer_norm_epsilon: float = 1e-5
    has_tied_embeddings: bool = True
    """The LM head is `wte`."""
    is_attention_scaled: bool = True
    """[scale_attn_weights]: scores over the square root of the head size."""
    is_attention_scaled_by_layer: bool = False
    """[scale_attn_by_inverse_layer_idx]: scores of layer i over i + 1 as well."""
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    """Tokens that end a text, each as well as another."""
    model_type: str = "gpt2"
    """The architecture, by the name that its config.json has."""

    @property
    def eos_token_id(self) -> int | None:
        """The first of them: it stands between documents, and a text without a beginning begins with it."""
        return self.eos_token_ids[0] if self.eos_token_ids else None

    @property
    def head_size(self) -> int:
        return self.width // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How the engine runs: resolved numbers, no `auto`."""

    precision: Precision
    num_threads: int
    kv_cache_bytes: int
    """What the KV cache may take; never less than one context of the model is given to it."""
    memory_limit_bytes: int
    """Memory that the process may use: a model whose weights and KV cache need more is refused."""
    max_num_sequences: int
    """Rows of one step at most."""
    max_step_tokens: int
    """Tokens that one step computes at most: longer prefills are cut into chunks."""
    max_batch_step_tokens: int
    """Of these, what batch work may have while other work has any."""
    max_draft_tokens: int
    """Guessed for one sequence in one step at most; 0: nothing is guessed."""
    is_prefix_caching: bool
    prefix_cache_bytes: int
    """How far memory may grow to keep what finished sequences computed, `kv_cache_bytes` at most."""
