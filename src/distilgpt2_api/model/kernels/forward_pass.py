"""The forward pass: tokens in, hidden states out; hidden states in, logits out. Both are one call of the library."""

import ctypes
import errno
import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.model.architectures.registry import architecture_of, tensor_specs
from distilgpt2_api.model.kernels.kv_cache import allocate_cache, kv_block_bytes
from distilgpt2_api.model.kernels.library import choose_target, load_library
from distilgpt2_api.model.kernels.structures import ACTIVATIONS, PRECISIONS, Layer, Matrix, Model, Norm, Step
from distilgpt2_api.model.step_inputs import StepInputs
from distilgpt2_api.model.weights.prepared import PreparedWeights, scale_name


class ForwardPass:
    """Owns the KV cache and the library's threads. One thread at a time; both calls release the GIL."""

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
        self.target = choose_target(target)
        self.kv_block_bytes = kv_block_bytes(config, precision)
        self._library = load_library()
        self._weights = weights
        self._config = config
        self._specs = tensor_specs(config)
        self._cache = allocate_cache(num_blocks * self.kv_block_bytes)
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
        assert self._library.engine_block_bytes(model) == self.kv_block_bytes
        self._engine = self._library.engine_open(model, self.target.encode(), num_threads)
        if not self._engine:
            if ctypes.get_errno() == errno.EAGAIN:
                raise ModelError(
                    f"the system refuses {num_threads} threads: allow more processes (ulimit -u, the container's pids"
                    " limit), or lower DISTILGPT2_NUM_THREADS"
                )
            raise MemoryError
        self._close = weakref.finalize(self, self._library.engine_close, self._engine)
        self._close.atexit = False  # the engine thread, a daemon, may be in a step when the process exits
        self._hidden = np.empty((0, config.width), np.float32)
        self._logits = np.empty((0, config.vocab_size), np.float32)

    def close(self) -> None:
        """Ends the threads. Idempotent; nothing may be computed after it."""
        self._close()

    def hidden_states(self, inputs: StepInputs) -> NDArray[np.float32]:
        """(T, C): computes the tokens and writes their keys and values. A view, valid until the next call."""
        num_tokens = len(inputs.token_ids)
        if len(self._hidden) < num_tokens:
            self._hidden = np.empty((num_tokens, self._config.width), np.float32)
        step = Step(
            num_tokens,
            len(inputs.token_begins) - 1,
            inputs.token_ids.ctypes.data,
            inputs.position_ids.ctypes.data,
            inputs.token_begins.ctypes.data,
            inputs.block_ids.ctypes.data,
            inputs.block_begins.ctypes.data,
            self._hidden.ctypes.data,
        )
        if self._library.engine_step(self._engine, step) != 0:
            raise MemoryError
        return self._hidden[:num_tokens]

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) → (N, V). A view, writable and valid until the next call."""
        num_rows = len(hidden)
        if len(self._logits) < num_rows:
            self._logits = np.empty((num_rows, self._config.vocab_size), np.float32)
        hidden = np.ascontiguousarray(hidden)
        if self._library.engine_logits(self._engine, hidden.ctypes.data, num_rows, self._logits.ctypes.data) != 0:
            raise MemoryError
        return self._logits[:num_rows]

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
