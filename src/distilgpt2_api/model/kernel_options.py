"""What OpenVINO's CPU plugin is told, per precision. Each choice has its reason beside it."""

from __future__ import annotations

import openvino as ov

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig, Precision

DYNAMIC_QUANTIZATION_GROUP_SIZE = 128
"""int8: how many activations share a scale."""

CACHE_PRECISIONS = {Precision.INT8: ov.Type.bf16, Precision.BF16: ov.Type.bf16, Precision.F32: ov.Type.f32}
"""Element type of the KV cache."""

INFERENCE_PRECISIONS = {Precision.INT8: "bf16", Precision.BF16: "bf16", Precision.F32: "f32"}
"""Arithmetic outside the int8 matmuls."""


def kv_block_bytes(config: ModelConfig, precision: Precision) -> int:
    """Memory of one block of the KV cache: keys and values of `BLOCK_SIZE` tokens in every layer."""
    element_bytes: int = CACHE_PRECISIONS[precision].size
    return 2 * config.num_layers * BLOCK_SIZE * config.width * element_bytes


def kernel_options(precision: Precision, num_threads: int) -> dict[str, str]:
    """Properties for `Core.compile_model`."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        "INFERENCE_PRECISION_HINT": INFERENCE_PRECISIONS[precision],
        "KV_CACHE_PRECISION": CACHE_PRECISIONS[precision].to_string(),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(DYNAMIC_QUANTIZATION_GROUP_SIZE if precision is Precision.INT8 else 0),
    }
