"""What OpenVINO's CPU plugin is told, per precision. Each choice has its reason beside it."""

from __future__ import annotations

import openvino as ov

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig, Precision

DYNAMIC_QUANTIZATION_GROUP_SIZE = 128
"""int8: how many activations of a row share a scale."""


def is_widened(config: ModelConfig, precision: Precision) -> bool:
    """Whether float32 must stand in for bf16.

    The plugin's bf16 attention gives nonsense for prompts longer than a token where the head size is odd (OpenVINO
    2026.4; no well-known GPT-2 has such heads).
    """
    return precision is not Precision.F32 and config.head_size % 2 == 1


def arithmetic_type(config: ModelConfig, precision: Precision) -> ov.Type:
    """Element type of the KV cache and of all arithmetic but the int8 matmuls."""
    return ov.Type.f32 if precision is Precision.F32 or is_widened(config, precision) else ov.Type.bf16


def kv_block_bytes(config: ModelConfig, precision: Precision) -> int:
    """Memory of one block of the KV cache: keys and values of `BLOCK_SIZE` tokens in every layer."""
    element_bytes: int = arithmetic_type(config, precision).size
    return 2 * config.num_layers * BLOCK_SIZE * config.width * element_bytes


def body_options(config: ModelConfig, precision: Precision, num_threads: int) -> dict[str, str]:
    """Properties for `Core.compile_model`: the body."""
    return _options(arithmetic_type(config, precision), precision, num_threads)


def head_options(config: ModelConfig, precision: Precision, num_threads: int) -> dict[str, str]:
    """Properties for `Core.compile_model`: the LM head.

    In bf16 the kernel rounds the logits themselves, to steps of 0.25 where GPT-2's lie; int8 weights multiplied in
    float32 give them whole, and no slower, as no conversion of 50 257 columns follows.
    """
    is_wide = precision is Precision.INT8
    return _options(ov.Type.f32 if is_wide else arithmetic_type(config, precision), precision, num_threads)


def _options(arithmetic: ov.Type, precision: Precision, num_threads: int) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        "INFERENCE_PRECISION_HINT": arithmetic.to_string(),
        "KV_CACHE_PRECISION": arithmetic.to_string(),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(DYNAMIC_QUANTIZATION_GROUP_SIZE if precision is Precision.INT8 else 0),
    }
