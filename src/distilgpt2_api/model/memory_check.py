"""Checks that a model fits the memory before any is allocated, and turns allocation failures into one-line errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelMemoryError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.architectures.registry import count_weights
from distilgpt2_api.model.kernels.options import kv_block_bytes

MIB = 1 << 20
SIGNS_OF_EXHAUSTION = ("bad_alloc", "allocate memory", "temporarily unavailable", "failed to map segment")
"""Texts in the kernels' library's errors about memory, and about threads without memory for their stacks."""


def check_memory(
    folder: Path, config: ModelConfig, precision: Precision, *, num_blocks: int, min_blocks: int, limit_bytes: int
) -> None:
    """Raises ModelMemoryError if weights and KV cache alone need more than `limit_bytes`.

    `min_blocks`: the blocks of one context, the least that any setting allocates.
    """
    weights_bytes = count_weights(config) * (1 if precision is Precision.INT8 else 4)
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
def kernel_errors_in_one_line(folder: Path) -> Iterator[None]:
    """Raises ModelMemoryError if memory runs out, UnsupportedModelError if the kernels fail for another reason."""
    try:
        yield
    except MemoryError:
        raise ModelMemoryError(f"{folder}: not enough memory to load the model") from None
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        if any(sign in str(error) for sign in SIGNS_OF_EXHAUSTION):
            raise ModelMemoryError(f"{folder}: not enough memory to load the model: {safe_name(lines[-1])}") from None
        raise UnsupportedModelError(f"{folder}: OpenVINO can't compile the model: {safe_name(lines[-1])}") from error
