"""Checks that a model fits the memory before any is allocated, and turns allocation failures into one-line errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelMemoryError
from distilgpt2_api.model.architectures.registry import count_weights
from distilgpt2_api.model.kernels.kv_cache import kv_block_bytes

MIB = 1 << 20
WEIGHT_BYTES = {Precision.INT8: 1, Precision.BF16: 2, Precision.F32: 4}


def check_memory(
    folder: Path, config: ModelConfig, precision: Precision, *, num_blocks: int, min_blocks: int, limit_bytes: int
) -> None:
    """Raises ModelMemoryError if weights and KV cache alone need more than `limit_bytes`.

    `min_blocks`: the blocks of one context, the least that any setting allocates.
    """
    weights_bytes = count_weights(config) * WEIGHT_BYTES[precision]
    cache_bytes = num_blocks * kv_block_bytes(config, precision)
    if weights_bytes + cache_bytes <= limit_bytes:
        return
    way_out = (
        "lower DISTILGPT2_KV_CACHE_BYTES"
        if num_blocks > min_blocks
        else f"the cache holds one context, {config.num_positions} tokens by its config.json"
    )
    raise ModelMemoryError(
        f"{folder}: weights of {weights_bytes // MIB} MiB and a KV cache of {cache_bytes // MIB} MiB don't fit into "
        f"{limit_bytes // MIB} MiB of memory; {way_out}"
    )


@contextmanager
def exhaustion_in_one_line(folder: Path) -> Iterator[None]:
    """Raises ModelMemoryError if memory runs out."""
    try:
        yield
    except MemoryError:
        raise ModelMemoryError(f"{folder}: not enough memory to load the model") from None
