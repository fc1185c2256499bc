"""The forward pass of a model: its weights and its KV cache, as the kernels read them."""

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.architectures.registry import architecture_of, tensor_specs
from distilgpt2_api.model.kernels.kernel_engine import KernelEngine
from distilgpt2_api.model.kernels.kv_cache import kv_block_bytes
from distilgpt2_api.model.kernels.library import load_library
from distilgpt2_api.model.kernels.structures import ACTIVATIONS, PRECISIONS, Layer, Matrix, Model, Norm
from distilgpt2_api.model.weights.panels import zeros_on_cache_line
from distilgpt2_api.model.weights.prepared import PreparedWeights, scale_name


class ForwardPass:
    """Owns the memory that `engine` computes in: weights and KV cache."""

    def __init__(
        self,
        config: ModelConfig,
        weights: PreparedWeights,
        *,
        precision: Precision,
        num_threads: int,
        num_blocks: int,
        target: str = "",
    ) -> None:
        """Weights are read where they are and nothing is copied. `target`: an instruction set; empty: the best.

        Raises UnsupportedProcessorError, ModelError if the system refuses threads, and MemoryError.
        """
        self.kv_block_bytes = kv_block_bytes(config, precision)
        self._weights = weights
        self._config = config
        self._specs = tensor_specs(config)
        self._cache = zeros_on_cache_line((num_blocks * self.kv_block_bytes,), np.uint8)
        self._layers = (Layer * config.num_layers)(*(self._layer(index) for index in range(config.num_layers)))
        architecture = architecture_of(config)
        embedding = self._matrix(architecture.embedding)
        model = Model(
            PRECISIONS[precision],
            ACTIVATIONS[config.activation],
            config.num_layers,
            config.num_heads,
            config.head_size,
            config.width,
            config.inner_width,
            config.vocab_size,
            config.layer_norm_epsilon,
            num_blocks,
            ctypes.addressof(self._layers),
            self._norm("ln_f"),
            embedding,
            embedding if config.has_tied_embeddings else self._matrix(architecture.lm_head),
            self._address("wpe.weight"),
            self._cache.ctypes.data,
        )
        assert load_library().engine_block_bytes(model) == self.kv_block_bytes
        self.engine = KernelEngine(model, num_threads=num_threads, target=target)

    def close(self) -> None:
        """Ends the threads. Idempotent; nothing may be computed after it."""
        self.engine.close()

    def _layer(self, index: int) -> Layer:
        name = f"h.{index}"
        return Layer(
            self._norm(f"{name}.ln_1"),
            self._linear(f"{name}.attn.c_attn"),
            self._linear(f"{name}.attn.c_proj"),
            self._norm(f"{name}.ln_2"),
            self._linear(f"{name}.mlp.c_fc"),
            self._linear(f"{name}.mlp.c_proj"),
            attention_scale(self._config, index),
        )

    def _linear(self, name: str) -> Matrix:
        return self._matrix(f"{name}.weight", self._address(f"{name}.bias"))

    def _matrix(self, name: str, bias: int | None = None) -> Matrix:
        num_out, num_in = self._specs[name].kernel_shape
        has_scale = scale_name(name) in self._weights.tensors
        return Matrix(
            self._address(name), self._address(scale_name(name)) if has_scale else None, bias, num_out, num_in
        )

    def _norm(self, name: str) -> Norm:
        return Norm(self._address(f"{name}.weight"), self._address(f"{name}.bias"))

    def _address(self, name: str) -> int:
        tensor: NDArray[Any] = self._weights.tensors[name]
        assert tensor.flags.c_contiguous
        return tensor.ctypes.data


def attention_scale(config: ModelConfig, layer: int) -> float:
    """The factor of a layer's attention scores."""
    scale = 1 / math.sqrt(config.head_size) if config.is_attention_scaled else 1.0
    return scale / (layer + 1) if config.is_attention_scaled_by_layer else scale
