"""A model's shape, and the engine's configuration."""

from dataclasses import dataclass
from enum import StrEnum

BLOCK_SIZE = 32
"""Tokens per block of the KV cache; `BLOCK_TOKENS` in `native/model.h`."""


MAX_DRAFT_TOKENS = 15
"""With the sequence's own token, this makes a step of 16 tokens. Longer drafts gain nothing."""


class Precision(StrEnum):
    """Weights and arithmetic of the forward pass."""

    INT8 = "int8"
    """Weights: symmetric int8 with a scale per output channel. Activations: quantised in groups at run time."""
    BF16 = "bf16"
    F32 = "f32"
    """The reference: greedy output equals that of `transformers` in float32."""


class Activation(StrEnum):
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
    """Tokens that end a text."""
    model_type: str = "gpt2"
    """The architecture's name in config.json."""

    @property
    def eos_token_id(self) -> int | None:
        """The first of `eos_token_ids`: it separates documents, and an empty prompt starts with it."""
        return self.eos_token_ids[0] if self.eos_token_ids else None

    @property
    def head_size(self) -> int:
        return self.width // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The engine's configuration, with every `auto` resolved. It is handed through whole."""

    precision: Precision
    num_threads: int
    kv_cache_bytes: int
    """Maximum memory of the KV cache. It always holds at least one context of the model."""
    memory_limit_bytes: int
    """Memory that the process may use: a model whose weights and KV cache need more is refused."""
    max_num_sequences: int
    """Maximum rows of a step."""
    max_step_tokens: int
    """Maximum tokens of a step. Longer prefills are split into chunks."""
    max_batch_step_tokens: int
    """Maximum tokens of batch work in a step, while there is other work."""
    max_draft_tokens: int
    """Maximum draft tokens of a sequence in a step. 0 disables drafts."""
    is_prefix_caching: bool
    prefix_cache_bytes: int
    """Memory up to which the KV cache grows to keep the blocks of finished sequences; at most `kv_cache_bytes`."""
    kernels: str = ""
    """Instruction set of the kernels, as the native library names it. Empty: the best that the processor has."""
