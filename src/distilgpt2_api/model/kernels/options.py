"""Options of OpenVINO's CPU plugin for each kernel precision (`processor.kernel_precision`), each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig, Precision
from distilgpt2_api.model.kernels.openvino_runtime import ov

DYNAMIC_QUANTIZATION_GROUP_SIZE = 128
"""Number of activations in a row that share an int8 scale. Larger is faster and coarser. At 32 sequences of
DistilGPT-2's shape on two cores, 32 (the plugin's default) gave 2 030 tokens/s, 128 gave 2 390, 768 (whole rows) 2 630;
the demo model's perplexity rose by 0.1 to 0.2 % with each of them. Whole rows are still too coarse: in larger GPT-2s a
few outlier features would determine the scale of all others (Dettmers et al. 2022, LLM.int8(), table 1).
"""

RUNTIME_CACHE_CAPACITY = 64
"""Kernels in the plugin's LRU cache. Each number of rows needs about ten kernels, half a megabyte to a megabyte
together, and each step may have a new number of rows: with the plugin's default of 5000 the memory would keep growing.
Decode steps of 1 to 32 rows, alternating, are not slower with this limit; steps mixed with prefills are 6 % slower.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementTypes:
    """Element types of the kernels' arithmetic and cache; the weights have their own."""

    body: ov.Type
    head: ov.Type
    cache: ov.Type


def element_types(precision: Precision) -> ElementTypes:
    """For int8: float32 between the matmuls is as fast as bf16 and keeps the residual stream and the logits exact (bf16
    rounds GPT-2's logits to steps of 0.25). The cache is u8, with a scale for each token's keys and values in each
    head: as fast as bf16, with 9/16 of its memory.
    """
    if precision is Precision.INT8:
        return ElementTypes(body=ov.Type.f32, head=ov.Type.f32, cache=ov.Type.u8)
    if precision is Precision.F32:
        return ElementTypes(body=ov.Type.f32, head=ov.Type.f32, cache=ov.Type.f32)
    return ElementTypes(body=ov.Type.bf16, head=ov.Type.bf16, cache=ov.Type.bf16)


def kv_block_bytes(config: ModelConfig, precision: Precision) -> int:
    """Memory of one block of the KV cache: keys and values of `BLOCK_SIZE` tokens in every layer."""
    cache, size = element_types(precision).cache, config.head_size
    element_bytes: int = cache.size
    num_elements = 2 * BLOCK_SIZE * size
    if cache == ov.Type.u8:
        num_elements += 2 * 8 * BLOCK_SIZE  # two floats, scale and zero point, for each token's keys and values
    return config.num_layers * config.num_heads * num_elements * element_bytes


def body_options(precision: Precision, num_threads: int) -> dict[str, str]:
    """Properties of the body for `Core.compile_model`."""
    types = element_types(precision)
    return _options(types.body, precision, num_threads) | {
        "KV_CACHE_PRECISION": types.cache.to_string(),
        # The plugin's default, a scale for each channel of a block, made the body 10 % slower at 32 sequences, and the
        # demo model's perplexity no better (23.785 against 23.788).
        "KEY_CACHE_QUANT_MODE": "BY_TOKEN",
    }


def head_options(precision: Precision, num_threads: int) -> dict[str, str]:
    """Properties of the LM head for `Core.compile_model`."""
    return _options(element_types(precision).head, precision, num_threads)


def _options(arithmetic: ov.Type, precision: Precision, num_threads: int) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        # Not faster when on, and the event loop needs one of these cores too.
        "ENABLE_CPU_PINNING": "NO",
        "CPU_RUNTIME_CACHE_CAPACITY": str(RUNTIME_CACHE_CAPACITY),
        "INFERENCE_PRECISION_HINT": arithmetic.to_string(),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(DYNAMIC_QUANTIZATION_GROUP_SIZE if precision is Precision.INT8 else 0),
    }
