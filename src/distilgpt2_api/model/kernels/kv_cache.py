"""The memory of the paged KV cache: two tensors a layer, in blocks of `BLOCK_SIZE` tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig
from distilgpt2_api.model.kernels.openvino_runtime import ov

CACHE_INPUTS = ("key_cache", "value_cache")


def declare_cache(body: ov.Model, config: ModelConfig, element_type: ov.Type) -> None:
    """Sets type and shape of the body's cache inputs. The plugin chooses the shape of a quantised cache, because it
    stores scales beside the values.
    """
    for parameter in body.get_parameters():
        if not parameter.get_friendly_name().startswith(CACHE_INPUTS):
            continue
        parameter.set_element_type(element_type)
        if element_type != ov.Type.u8:
            parameter.set_partial_shape(ov.PartialShape([-1, config.num_heads, BLOCK_SIZE, config.head_size]))
    body.validate_nodes_and_infer_types()


@dataclass(frozen=True, slots=True)
class KvCache:
    """Input index → tensor. The memory is the system's zero pages until a block is first written."""

    tensors: dict[int, ov.Tensor]
    block_bytes: int
    """Keys and values of one block in all layers."""


def allocate_cache(body: ov.CompiledModel, num_blocks: int) -> KvCache:
    tensors: dict[int, ov.Tensor] = {}
    block_bytes = 0
    for index, port in enumerate(body.inputs):
        if port.any_name.startswith(CACHE_INPUTS):
            block_shape = [dimension.get_length() for dimension in list(port.partial_shape)[1:]]
            tensors[index] = ov.Tensor(port.element_type, ov.Shape([num_blocks, *block_shape]))
            block_bytes += math.prod(block_shape) * port.element_type.size
    return KvCache(tensors, block_bytes)
