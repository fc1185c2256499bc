"""The compiled forward pass: tokens in, hidden states out; hidden states in, logits out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.model.kernels.kv_cache import allocate_cache, declare_cache
from distilgpt2_api.model.kernels.openvino_runtime import ov
from distilgpt2_api.model.kernels.options import body_options, element_types, head_options
from distilgpt2_api.model.kernels.paged_attention import split_and_page
from distilgpt2_api.model.kernels.token_embedding import TokenEmbedding
from distilgpt2_api.model.step_inputs import StepInputs
from distilgpt2_api.model.weights.prepared import PreparedWeights


@cache
def _core() -> ov.Core:
    """One for the process, never freed.

    The CPU plugin gives the thread that creates it an alternative signal stack, and frees that memory when the plugin
    is destroyed, on any thread. The next signal to the first thread would then kill the process (2026.4).
    """
    return ov.Core()


class ForwardPass:
    """Two infer requests and the KV cache that they own. One thread at a time; both calls release the GIL."""

    def __init__(
        self,
        config: ModelConfig,
        weights: PreparedWeights,
        graph: ov.Model,
        *,
        precision: Precision,
        num_threads: int,
        num_blocks: int,
    ) -> None:
        """Compiles the architecture's `graph`, which can't be used afterwards.

        The kernels pack the matrices at the first step, and read the other, small tensors in place.
        """
        models = split_and_page(graph, config.width)
        declare_cache(models.body, config, element_types(precision).cache)
        core = _core()
        body = core.compile_model(models.body, "CPU", body_options(precision, num_threads))
        head = core.compile_model(models.head, "CPU", head_options(precision, num_threads))
        self._body, self._head = body.create_infer_request(), head.create_infer_request()
        self._width = config.width
        self._embedding = TokenEmbedding(weights)
        self._inputs = {port.any_name: _Input(index) for index, port in enumerate(body.inputs)}
        kv_cache = allocate_cache(body, num_blocks)
        self.kv_block_bytes = kv_cache.block_bytes
        for index, tensor in kv_cache.tensors.items():
            self._body.set_input_tensor(index, tensor)

    def hidden_states(self, inputs: StepInputs) -> NDArray[np.float32]:
        """(T, C): computes the tokens and writes their keys and values. A view, valid until the next call."""
        arrays = inputs.named()
        arrays["inputs_embeds"] = self._embedding.look_up(arrays.pop("input_ids"))
        for name, array in arrays.items():
            self._inputs[name].set(self._body, array)
        self._body.infer(share_outputs=True)
        hidden: NDArray[np.float32] = self._body.get_output_tensor(0).data
        return hidden.reshape(-1, self._width)

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) → (N, V). A view, writable and valid until the next call."""
        self._head.set_input_tensor(0, ov.Tensor(hidden, shared_memory=True))
        self._head.infer(share_outputs=True)
        logits: NDArray[Any] = self._head.get_output_tensor(0).data
        return logits


class _Input:
    """One input of the body. Consecutive decode steps have the same shape, so they only copy a few numbers."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._array: NDArray[Any] | None = None

    def set(self, request: ov.InferRequest, array: NDArray[Any]) -> None:
        if self._array is not None and self._array.shape == array.shape:
            self._array[...] = array
        else:
            self._array = array
            request.set_input_tensor(self._index, ov.Tensor(array, shared_memory=True))
