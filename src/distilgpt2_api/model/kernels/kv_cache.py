"""The size of the paged KV cache (Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving
with PagedAttention"), in blocks of `BLOCK_SIZE` tokens. Its layout is in `native/kernels.h`.
"""

from distilgpt2_api.core.config import BLOCK_SIZE, ModelConfig, Precision


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
