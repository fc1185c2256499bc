"""The memory of the paged KV cache (Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving
with PagedAttention"), in blocks of `BLOCK_SIZE` tokens. Its layout is in `native/kernels.h`.
"""

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig, Precision

ALIGNMENT = 128


def kv_block_bytes(config: ModelConfig, precision: Precision) -> int:
    """Memory of one block: keys and values of `BLOCK_SIZE` tokens in every layer.

    Bytes, with a bfloat16 scale and offset for each token's keys and values in each head; float32 in that precision.
    """
    key_size, value_size = config.head_size, -(-config.head_size // 16) * 16
    if precision is Precision.F32:
        head_bytes = 4 * BLOCK_SIZE * (key_size + value_size)
    else:
        head_bytes = BLOCK_SIZE * (-(-key_size // 4) * 4 + value_size + 2 * (2 + 2))
    return config.num_layers * config.num_heads * head_bytes


def allocate_cache(num_bytes: int) -> NDArray[np.uint8]:
    """Begins on a cache line. The memory is the system's zero pages until a block is first written."""
    whole = np.zeros(num_bytes + ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % ALIGNMENT
    return whole[begin : begin + num_bytes]
