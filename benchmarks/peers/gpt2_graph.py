"""GPT-2's forward pass as a stateful OpenVINO graph, which OpenVINO GenAI serves (Radford et al. 2019; `transformers`'
GPT2LMHeadModel). Keys and values are variables: its runtime turns that form into paged attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino.op.util import Variable, VariableInfo

from distilgpt2_api.core.config import Activation, ModelConfig
from distilgpt2_api.model.kernels.forward_pass import attention_scale
from distilgpt2_api.model.weights.prepared import scale_name

Weights = Mapping[str, NDArray[Any]]
"""Matrices as (out, in) int8, each with a scale (out, 1) under `scale_name`; all else float32."""
LOGITS = "logits"
"""The graph's result: (B, S, V)."""


def build_graph(config: ModelConfig, weights: Weights) -> ov.Model:
    """Inputs `inputs_embeds` (B, S, C) float32, the tokens' embeddings, `position_ids` (B, S)
    int64 and `beam_idx` (B,) int32; result LOGITS.

    Constants share memory with `weights`.
    """
    return _GraphBuilder(config, weights).build()


class _GraphBuilder:
    """Grows one graph, layer by layer.

    Shapes: B sequences, S tokens, C width, H heads, D head size, I inner width, V vocabulary.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._sinks: list[Any] = []
        self._beam_idx = _parameter("beam_idx", [-1], ov.Type.i32)

    def build(self) -> ov.Model:
        config = self._config
        embeddings = _parameter("inputs_embeds", [-1, -1, config.width], ov.Type.f32)
        position_ids = _parameter("position_ids", [-1, -1], ov.Type.i64)
        hidden = ops.add(embeddings, self._position_embedding(position_ids))  # (B, S, C)
        for layer in range(config.num_layers):
            name = f"h.{layer}"
            attended = self._attention(layer, self._layer_norm(f"{name}.ln_1", hidden))
            hidden = ops.add(hidden, attended)
            hidden = ops.add(hidden, self._mlp(f"{name}.mlp", self._layer_norm(f"{name}.ln_2", hidden)))
        hidden = self._layer_norm("ln_f", hidden)
        head = "wte.weight" if config.has_tied_embeddings else "lm_head.weight"
        logits = ops.matmul(hidden, self._matrix(head), False, True)  # (B, S, V)
        return ov.Model(
            [_result(LOGITS, logits)],
            self._sinks,
            [embeddings, position_ids, self._beam_idx],
            "gpt2",
        )

    def _position_embedding(self, position_ids: Any) -> Any:
        return ops.gather(_constant(self._weights["wpe.weight"]), position_ids, _axis(0))

    def _matrix(self, name: str) -> Any:
        """(out, in) as float32 to the graph; the plugin folds `convert` and `multiply` into its matmul kernels."""
        values = _widen(_constant(self._weights[name]))
        scale = self._weights.get(scale_name(name))
        return values if scale is None else ops.multiply(values, _constant(scale))

    def _linear(self, name: str, hidden: Any) -> Any:
        product = ops.matmul(hidden, self._matrix(f"{name}.weight"), False, True)
        return ops.add(product, _constant(self._weights[f"{name}.bias"]))

    def _layer_norm(self, name: str, hidden: Any) -> Any:
        normal = ops.mvn(hidden, _ints([-1]), True, self._config.layer_norm_epsilon, "inside_sqrt")
        scaled = ops.multiply(normal, _constant(self._weights[f"{name}.weight"]))
        return ops.add(scaled, _constant(self._weights[f"{name}.bias"]))

    def _mlp(self, name: str, hidden: Any) -> Any:
        inner = _activate(self._config.activation, self._linear(f"{name}.c_fc", hidden))  # (B, S, I)
        return self._linear(f"{name}.c_proj", inner)

    def _attention(self, layer: int, hidden: Any) -> Any:
        config = self._config
        qkv = self._linear(f"h.{layer}.attn.c_attn", hidden)  # (B, S, 3C)
        query, key, value = (self._split_heads(part) for part in ops.split(qkv, _axis(-1), 3).outputs())  # (B, H, S, D)
        key = self._append_to_state(f"past.{layer}.key", key)
        value = self._append_to_state(f"past.{layer}.value", value)
        scale = ops.constant(np.float32(attention_scale(config, layer)))
        attended = ops.scaled_dot_product_attention(query, key, value, attention_mask=None, scale=scale, causal=True)
        joined = ops.reshape(ops.transpose(attended, _ints([0, 2, 1, 3])), _ints([0, 0, config.width]), True)
        return self._linear(f"h.{layer}.attn.c_proj", joined)

    def _split_heads(self, part: Any) -> Any:
        """(B, S, C) → (B, H, S, D)"""
        shape = _ints([0, 0, self._config.num_heads, self._config.head_size])
        return ops.transpose(ops.reshape(part, shape, True), _ints([0, 2, 1, 3]))

    def _append_to_state(self, name: str, new: Any) -> Any:
        """The pattern that the paged attention transformation looks for."""
        heads, size = self._config.num_heads, self._config.head_size
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, heads, -1, size])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        empty = ops.constant(np.zeros((1, heads, 0, size), np.float32))
        past = ops.gather(ov.opset6.read_value(empty, variable), self._beam_idx, _axis(0))
        whole = ops.concat([past, new], 2)
        self._sinks.append(ov.opset6.assign(whole, variable))
        return whole


def _activate(activation: Activation, inner: Any) -> Any:
    match activation:
        case Activation.GELU_TANH:
            return ops.gelu(inner, "tanh")
        case Activation.GELU_ERF:
            return ops.gelu(inner, "erf")
        case Activation.RELU:
            return ops.relu(inner)
        case Activation.SILU:
            return ops.swish(inner)
        case Activation.TANH:
            return ops.tanh(inner)


def _widen(node: Any) -> Any:
    return node if node.get_element_type() == ov.Type.f32 else ops.convert(node, "f32")


def _constant(array: NDArray[Any]) -> Any:
    """Shares the array's memory and keeps it alive."""
    return ov.op.Constant(array, shared_memory=True)


def _ints(values: list[int]) -> Any:
    return ops.constant(np.array(values, np.int64))


def _axis(axis: int) -> Any:
    return ops.constant(np.int64(axis))


def _parameter(name: str, shape: list[int], element_type: Any) -> Any:
    node = ops.parameter(shape, element_type)
    node.set_friendly_name(name)  # the transformation looks for both names
    node.output(0).get_tensor().set_names({name})
    return node


def _result(name: str, node: Any) -> Any:
    result = ops.result(node)
    result.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return result
